package mounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Blank tells whether a device holds nothing: blkid finds no file system, RAID, encryption or partition table on it, and
// its first and last MiB are zeros. If it holds something, found says what.
func Blank(ctx context.Context, dev string) (blank bool, found string, err error) {
	tags, err := probe(ctx, dev)
	if err != nil {
		return false, "", err
	}
	if len(tags) > 0 {
		return false, describe(tags), nil
	}
	return zeroEnds(dev)
}

// FSType is the type of the file system on a device, "" if blkid finds none.
func FSType(ctx context.Context, dev string) (string, error) {
	tags, err := probe(ctx, dev)
	return tags["TYPE"], err
}

// probe runs blkid's low-level probing, past its cache. Exit status 2 means it found nothing, 8 that what it found
// contradicts itself.
func probe(ctx context.Context, dev string) (map[string]string, error) {
	blkid, err := program("blkid", "util-linux")
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, blkid, "-p", "-o", "export", dev)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return parseTags(string(out)), nil
	case errors.As(err, &exit) && exit.ExitCode() == 2 && stderr.Len() == 0:
		return nil, nil
	case errors.As(err, &exit) && exit.ExitCode() == 8:
		return map[string]string{"USAGE": "more than one thing"}, nil
	}
	return nil, fmt.Errorf("blkid %s: %w: %s", dev, err, bytes.TrimSpace(stderr.Bytes()))
}

func parseTags(export string) map[string]string {
	tags := make(map[string]string)
	for line := range strings.Lines(export) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && k != "DEVNAME" {
			tags[k] = v
		}
	}
	return tags
}

func describe(tags map[string]string) string {
	what := "data of an unknown kind"
	switch {
	case tags["TYPE"] != "":
		what = tags["TYPE"]
	case tags["PTTYPE"] != "":
		what = tags["PTTYPE"] + " partition table"
	case tags["USAGE"] != "":
		what = tags["USAGE"]
	}
	if label := tags["LABEL"]; label != "" {
		what += fmt.Sprintf(" labelled %q", label)
	}
	return what
}

func zeroEnds(dev string) (blank bool, found string, err error) {
	const mib = 1 << 20
	f, err := os.Open(dev)
	if err != nil {
		return false, "", err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, "", fmt.Errorf("size of %s: %w", dev, err)
	}
	n := min(size, mib)
	for where, off := range map[string]int64{"first": 0, "last": size - n} {
		zero, err := isZero(f, off, n)
		if err != nil {
			return false, "", fmt.Errorf("is it blank: %w", err)
		}
		if !zero {
			return false, fmt.Sprintf("data of an unknown kind in the %s MiB", where), nil
		}
	}
	return true, "", nil
}

func isZero(f *os.File, off, n int64) (bool, error) {
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		return false, err
	}
	return len(bytes.Trim(b, "\x00")) == 0, nil
}
