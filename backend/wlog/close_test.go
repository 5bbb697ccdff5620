package wlog

import (
	"context"
	"errors"
	"os"
	"testing"

	"glidefs-appliance/backend/vfs"
)

// TestSpanOutlivesTheLog: a move that is under way when the log is closed goes to the segment's file, not to one that was
// given the same descriptor next.
func TestSpanOutlivesTheLog(t *testing.T) {
	for _, c := range []struct {
		name string
		n    int64
		end  func(*Log, []Span)
	}{
		{"abandoned", blockSize, (*Log).Abandon},
		{"in two segments", 20 * blockSize, (*Log).Abandon},
		{"appended", blockSize, func(l *Log, spans []Span) {
			if err := l.Commit(l.Append([]Record{{Kind: KindWrite, Flags: FlagEnd, Count: 1}}, spans)); !errors.Is(err, ErrClosed) {
				t.Errorf("committed to a closed log: %v", err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := testOptions(vfs.OS())
			o.Dir = t.TempDir()
			l := startLog(t, o, 1)
			spans, err := l.Reserve(context.Background(), c.n, nil)
			if err != nil {
				t.Fatal(err)
			}
			l.close()
			for _, s := range spans {
				if err := s.Seg.WriteAt(block(1, 1), s.Off); err != nil {
					t.Error(err)
				}
			}
			c.end(l.Log, spans)
			for _, s := range spans {
				waitFor(t, func() bool { return errors.Is(s.Seg.WriteAt(block(1, 1), s.Off), os.ErrClosed) })
			}
		})
	}
}
