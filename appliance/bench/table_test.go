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

// row of the table. Ours and Ref are what Unit says; Ratio is what Must bounds.
type row struct {
	What, Unit string
	Ours, Ref  float64
	RefName    string
	Ratio      float64
	Must       float64 // 0: no bound
	AtMost     bool    // Must is an upper bound
	Acked      string  // where a write was acknowledged
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
	case r.Must == 0:
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
		return fmt.Sprintf("<= %.2f", r.Must)
	}
	return fmt.Sprintf(">= %.2f", r.Must)
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
			fmt.Println("each row ran for a moment only: GLIDEFS_BENCH=10s, or make bench, makes it measure")
		}
	}
	os.Exit(code)
}

// full tells whether the rows measure, or only show that they work.
func full() bool { return os.Getenv("GLIDEFS_BENCH") != "" }

// runtime of one run of one side of a row.
func runtime(t testing.TB) time.Duration {
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
