package bench

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// row of the table. Must bounds Ratio.
type row struct {
	What, Unit string
	sides
	RefName string
	Must    float64 // 0: no bound
	AtMost  bool    // Must is an upper bound
	Acked   string  // where a write was acknowledged
}

// sides of a comparison: medians of several runs, in the row's unit. Ratio is the median of the ratios of runs that
// followed each other, so that what else the machine does touches it less than it does the two.
type sides struct{ Ours, Ref, Ratio float64 }

// scaled is s in another unit.
func (s sides) scaled(by float64) sides { return sides{s.Ours * by, s.Ref * by, s.Ratio} }

// turns runs both sides in turns, rounds times; every other round the reference goes first.
func turns(rounds int, ours, ref func() float64) sides {
	var os, rs, ratios []float64
	for i := range rounds {
		var o, r float64
		if i%2 == 0 {
			o, r = ours(), ref()
		} else {
			r, o = ref(), ours()
		}
		os, rs, ratios = append(os, o), append(rs, r), append(ratios, o/r)
	}
	return sides{median(os), median(rs), median(ratios)}
}

var table struct {
	sync.Mutex
	rows []row
}

func report(r row) {
	table.Lock()
	defer table.Unlock()
	table.rows = append(table.rows, r)
}

func (r row) verdict() string {
	switch {
	case r.Must == 0 || !full():
		return ""
	case r.AtMost && r.Ratio <= r.Must || !r.AtMost && r.Ratio >= r.Must:
		return "reached"
	}
	return "MISSED"
}

func (r row) bound() string {
	switch {
	case r.Must == 0:
		return ""
	case r.AtMost:
		return fmt.Sprintf("<= %g", r.Must)
	}
	return fmt.Sprintf(">= %g", r.Must)
}

func TestMain(m *testing.M) {
	code := m.Run()
	if len(table.rows) > 0 {
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "WHAT\tOURS\tREFERENCE\tUNIT\tRATIO\tMUST\t\tREFERENCE IS\tACKNOWLEDGED")
		for _, r := range table.rows {
			fmt.Fprintf(w, "%s\t%.4g\t%.4g\t%s\t%.2f\t%s\t%s\t%s\t%s\n", r.What, r.Ours, r.Ref, r.Unit, r.Ratio, r.bound(), r.verdict(), r.RefName, r.Acked)
		}
		w.Flush()
		if !full() {
			fmt.Println("each row ran for a moment only, which says nothing about speed: make bench measures")
		}
	}
	os.Exit(code)
}

// full tells whether the rows measure, or only show that they work.
func full() bool { return os.Getenv("GLIDEFS_BENCH") != "" }

// span of one run of one side of a row.
func span(t testing.TB) time.Duration {
	v := os.Getenv("GLIDEFS_BENCH")
	if v == "" {
		return 200 * time.Millisecond
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("GLIDEFS_BENCH: %v", err)
	}
	return d
}

// choose is long when measuring, else short.
func choose[T any](short, long T) T {
	if full() {
		return long
	}
	return short
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
