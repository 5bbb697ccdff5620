package dir

import (
	"os"
	"path/filepath"
	"time"
)

// staleAfter is longer than any PUT takes. Should one take longer after all (a stopped process), its rename fails and
// it is tried again.
const staleAfter = time.Hour

// removeStaleTemps removes what killed processes left behind. Failing to is no reason not to open.
func (s *Store) removeStaleTemps() {
	dir := filepath.Join(s.root, tmpDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
