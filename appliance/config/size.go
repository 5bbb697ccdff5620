package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written as a whole number with an optional suffix K, M, G, T or P (powers of 1024; Ki, KiB
// and so on mean the same). "KB" is refused: half of the world reads it as 1000.
type Size int64

const units = "KMGTP"

// ParseSize reads a Size.
func ParseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "KMGTPkmgtpiB")
	n, err := strconv.ParseUint(digits, 10, 63)
	shift, ok := unitShift(s[len(digits):])
	if err != nil || !ok || digits[0] == '+' {
		return 0, fmt.Errorf("invalid size %q: write it like 512M, 10G or 2T (powers of 1024)", s)
	}
	if n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return Size(n << shift), nil
}

func unitShift(suffix string) (int, bool) {
	if suffix == "" {
		return 0, true
	}
	i := strings.Index(units, strings.ToUpper(suffix[:1]))
	rest := suffix[1:]
	return 10 * (i + 1), i >= 0 && (rest == "" || rest == "i" || rest == "iB")
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// String writes the size so that ParseSize reads the same number back: with the largest suffix that divides it.
func (s Size) String() string {
	n, unit := int64(s), ""
	for i := 0; i < len(units) && n != 0 && n%1024 == 0; i++ {
		n, unit = n/1024, units[i:i+1]
	}
	return strconv.FormatInt(n, 10) + unit
}

// Human writes n bytes for people: three digits and a unit, like 1.50 GiB.
func Human(n int64) string {
	f, unit := float64(n), "B"
	for i := 0; i < len(units) && f >= 1000; i++ {
		f, unit = f/1024, units[i:i+1]+"iB"
	}
	switch {
	case unit == "B":
		return fmt.Sprintf("%d B", n)
	case f < 10:
		return fmt.Sprintf("%.2f %s", f, unit)
	case f < 100:
		return fmt.Sprintf("%.1f %s", f, unit)
	}
	return fmt.Sprintf("%.0f %s", f, unit)
}
