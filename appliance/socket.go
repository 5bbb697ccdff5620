package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

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
	config := net.ListenConfig{Control: private}
	l, err := config.Listen(context.Background(), "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
	if err != nil {
		return nil, err
	}
	// The path goes through a descriptor that is closed by then; close() removes the socket by its real name.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

// private gives the socket its mode before it has a name, so that there is no moment in which anybody may connect: the
// kernel takes the mode of the file from that of the descriptor (Linux; man 7 unix speaks of the umask only).
func private(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
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
