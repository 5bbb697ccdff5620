package frontendtest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Row is one line of a comparison.
type Row struct {
	Name  string
	RW    string
	BS    int
	Depth int
}

// Rows are the patterns of the FUSE benchmark.
var Rows = []Row{
	{"4k random read QD1", "randread", 4 << 10, 1},
	{"4k random read QD32", "randread", 4 << 10, 32},
	{"4k random write QD1", "randwrite", 4 << 10, 1},
	{"4k random write QD32", "randwrite", 4 << 10, 32},
	{"128k sequential read QD16", "read", 128 << 10, 16},
	{"128k sequential write QD16", "write", 128 << 10, 16},
}

// Comparison runs every row on two files in turns and compares the medians.
type Comparison struct {
	Ours, Reference string // paths
	Rows            []Row
	Size            int64         // bytes of each file that fio uses
	Runtime         time.Duration // of one run
	Rounds          int
}

// Ratio is a row's outcome: medians in bytes a second.
type Ratio struct {
	Row
	Ours, Reference float64
}

// Value is ours over the reference.
func (r Ratio) Value() float64 { return r.Ours / r.Reference }

// Run measures. The two files take turns within every round, so that what else the machine does meets both.
func (c Comparison) Run(ctx context.Context) ([]Ratio, error) {
	out := make([]Ratio, 0, len(c.Rows))
	for _, row := range c.Rows {
		var got [2][]float64
		for range c.Rounds {
			for i, path := range []string{c.Ours, c.Reference} {
				r, err := FIO{File: path, RW: row.RW, BS: row.BS, Depth: row.Depth, Size: c.Size, Runtime: c.Runtime}.Run(ctx)
				if err != nil {
					return nil, err
				}
				got[i] = append(got[i], r.BW)
			}
		}
		out = append(out, Ratio{row, median(got[0]), median(got[1])})
	}
	return out, nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// Print writes the table: IOPS and MB/s of both, and the ratio.
func Print(w io.Writer, ratios []Ratio) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "what\tours IOPS\treference IOPS\tours MB/s\treference MB/s\tratio\t")
	for _, r := range ratios {
		bs := float64(r.BS)
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t%.1f\t%.1f\t%.2f\t\n", r.Name, r.Ours/bs, r.Reference/bs, r.Ours/1e6, r.Reference/1e6, r.Value())
	}
	return tw.Flush()
}
