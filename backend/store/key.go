package store

import (
	"fmt"
	"strings"
)

// Bounds of a key, in bytes. S3 allows 1,024 in all, of which a bucket prefix takes up to 256; a file name may have 255.
const (
	MaxKey  = 700
	MaxPart = 200
)

// CheckKey returns ErrBadKey unless key is a/b/c with parts of letters, digits and -_.+=@~ that do not begin with a
// dot: safe as an S3 key, as a path below a folder, and in a URL without escaping.
func CheckKey(key string) error {
	if len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrBadKey, len(key), MaxKey)
	}
	for part := range strings.SplitSeq(key, "/") {
		if err := checkPart(part); err != nil {
			return fmt.Errorf("%w %q: %s", ErrBadKey, key, err)
		}
	}
	return nil
}

type partError string

func (e partError) Error() string { return string(e) }

func checkPart(part string) error {
	switch {
	case part == "":
		return partError("empty part")
	case part[0] == '.':
		return partError("a part begins with a dot")
	case len(part) > MaxPart:
		return partError("a part is too long")
	}
	for i := range len(part) {
		if !keyByte(part[i]) {
			return partError(fmt.Sprintf("byte %#02x is not allowed", part[i]))
		}
	}
	return nil
}

func keyByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.+=@~", c) >= 0
}
