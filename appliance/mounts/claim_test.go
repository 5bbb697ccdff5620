package mounts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestClaim(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := Claim(t.Context(), disk)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Claim(ctx, disk); !errors.Is(err, context.Canceled) {
		t.Errorf("claimed twice: %v", err)
	}
	first.Close()
	second, err := Claim(ctx, disk) // which does not have to wait
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
