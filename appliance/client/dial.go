package client

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// A Unix socket's path has at most this many bytes (sun_path, with its final zero).
const maxSocketPath = 107

// dialUnix connects to a socket however long its path is: a long one goes through a descriptor of its folder.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) <= maxSocketPath {
		return d.DialContext(ctx, "unix", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}
