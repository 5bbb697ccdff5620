package ublk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
)

// GiveUp removes the devices of an owner who has no server and is to have none: their users get EIO rather than wait for
// one. It waits until the kernel has let go of them, and is for a process without a server; a host without ublk has none.
func GiveUp(owner string, log *slog.Logger) error {
	control, err := openControl(log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("give up block devices: %w", err)
	}
	s := &Server{o: Options{Log: log}, owner: ownerCookie(owner), control: control}
	list, err := s.owned()
	for _, i := range list {
		err = errors.Join(err, s.discard(i))
	}
	return errors.Join(err, control.close())
}
