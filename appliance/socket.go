package appliance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/statedir"
)

// listenUnix makes a socket (0600) however long its path is: through a descriptor of its folder, because sun_path holds
// 107 bytes.
func listenUnix(path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// The mode must be right from the first moment, not after a chmod.
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
	if err != nil {
		return nil, err
	}
	// The path goes through a descriptor that is closed by then; close() removes the socket by its real name.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

// asAPI tells a client that started us whether to try again: somebody else was faster.
func asAPI(err error) *api.Error {
	e := (*api.Error)(nil)
	switch {
	case errors.As(err, &e):
		return &api.Error{Code: e.Code, Message: err.Error()}
	case errors.Is(err, statedir.ErrInUse):
		return &api.Error{Code: api.CodeBusy, Message: err.Error()}
	}
	return &api.Error{Code: api.CodeInternal, Message: err.Error()}
}
