package frontendtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"
)

// FIO is one run of fio on one file or device, O_DIRECT through libaio.
type FIO struct {
	File    string
	RW      string // read, write, randread, randwrite
	BS      int    // bytes a request
	Depth   int
	Size    int64 // bytes of the file it uses
	Runtime time.Duration
	Extra   []string // further arguments
}

// FIOResult is what a run achieved.
type FIOResult struct {
	IOPS, BW float64 // requests and bytes a second
	P50, P99 time.Duration
	Requests int64 // answered, reads and writes
	Errors   int
}

// Run runs fio and waits for it.
func (f FIO) Run(ctx context.Context) (FIOResult, error) {
	args := append([]string{
		"--name=job", "--output-format=json", "--direct=1", "--ioengine=libaio", "--allow_file_create=0", "--randrepeat=0",
		"--norandommap", "--time_based", "--group_reporting", "--filename=" + f.File, "--rw=" + f.RW,
		fmt.Sprintf("--bs=%d", f.BS), fmt.Sprintf("--iodepth=%d", f.Depth), fmt.Sprintf("--size=%d", f.Size),
		fmt.Sprintf("--runtime=%dms", f.Runtime.Milliseconds()),
	}, f.Extra...)
	cmd := exec.CommandContext(ctx, "fio", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return FIOResult{}, fmt.Errorf("fio %s of %s: %w: %s", f.RW, f.File, err, stderr.Bytes())
	}
	return parseFIO(out)
}

type fioSide struct {
	IOPS float64 `json:"iops"`
	BW   float64 `json:"bw_bytes"`
	Ios  int64   `json:"total_ios"`
	Clat struct {
		Percentile map[string]int64 `json:"percentile"`
	} `json:"clat_ns"`
}

// parseFIO reads --output-format=json; what fio prints before the first brace is a warning.
func parseFIO(out []byte) (FIOResult, error) {
	var doc struct {
		Jobs []struct {
			Error       int `json:"error"`
			TotalErr    int `json:"total_err"`
			Read, Write fioSide
		}
	}
	if i := bytes.IndexByte(out, '{'); i > 0 {
		out = out[i:]
	}
	if err := json.Unmarshal(out, &doc); err != nil || len(doc.Jobs) == 0 {
		return FIOResult{}, fmt.Errorf("fio's output: %d jobs, %w", len(doc.Jobs), err)
	}
	j := doc.Jobs[0]
	side := j.Read
	if j.Write.Ios > j.Read.Ios {
		side = j.Write
	}
	pct := func(k string) time.Duration { return time.Duration(side.Clat.Percentile[k]) }
	return FIOResult{IOPS: side.IOPS, BW: side.BW, P50: pct("50.000000"), P99: pct("99.000000"), Requests: j.Read.Ios + j.Write.Ios, Errors: j.Error + j.TotalErr}, nil
}
