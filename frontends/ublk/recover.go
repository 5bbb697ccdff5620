package ublk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// quiesceLimit is how long the kernel may take to notice that the process that served its devices is dead: it tears rings
// down after the exit, and on a busy host with many devices that has taken more than ten seconds.
const quiesceLimit = time.Minute

var errServed = errors.New("served by another process, or not let go of by a dead one yet")

// owned returns the devices of this owner, ours first hand or left by a process before us.
func (s *Server) owned() ([]devInfo, error) {
	ids, err := present()
	if err != nil {
		return nil, err
	}
	var list []devInfo
	for _, id := range ids {
		i, err := s.control.info(id)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if ours(i.Cookie, s.owner) {
			list = append(list, i)
		}
	}
	return list, nil
}

// left returns the device with that cookie which a process before us left; nil when there is none. All are looked for
// once: nobody else makes any, and asking for each at every Add would take n*n commands for n disks.
func (s *Server) left(cookie uint64) (*devInfo, error) {
	s.looking.Lock()
	defer s.looking.Unlock()
	if s.lefts == nil {
		list, err := s.owned()
		if err != nil {
			return nil, err
		}
		s.lefts = map[uint64]uint32{}
		for _, i := range list {
			if i.State != stateDead {
				s.lefts[i.Cookie] = i.ID
			} else if err := s.discard(i); err != nil { // never finished, or taken away half-way
				s.o.Log.Warn("a ublk device that was left over stays", "device", i.ID, "err", err)
			}
		}
	}
	id, was := s.lefts[cookie]
	if !was {
		return nil, nil
	}
	i, err := s.control.info(id)
	if errors.Is(err, unix.ENODEV) || err == nil && i.Cookie != cookie {
		return nil, nil
	}
	return &i, err
}

// taken forgets that a device was left.
func (s *Server) taken(cookie uint64) {
	s.looking.Lock()
	defer s.looking.Unlock()
	delete(s.lefts, cookie)
}

// Settle waits until no device of this owner is served by a process before us: until then its last writes may still be
// on their way to the logs. Called before the disks are opened. The kernel lets go of the devices of a dead process one
// after the other, with an RCU grace period for each: quiesceLimit is for the next one of them.
func (s *Server) Settle(ctx context.Context) error {
	list, err := s.owned()
	for before := len(list) + 1; err == nil && len(list) < before; {
		before = len(list)
		err = poll(ctx, quiesceLimit, func() (bool, error) {
			var served error
			list, served = s.served(list)
			if len(list) < before && errors.Is(served, errServed) {
				return true, nil
			}
			return served == nil, served
		}, errServed)
	}
	return err
}

// served keeps those of the devices that another one serves, and says which the first one is. The number of his process
// tells nothing: in a container each daemon may have the same.
func (s *Server) served(list []devInfo) (left []devInfo, served error) {
	for _, i := range list {
		i, err := s.control.info(i.ID)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return list, err
		}
		if i.State == stateLive && !s.serving(i.Cookie) {
			left = append(left, i)
		}
	}
	if len(left) > 0 {
		served = fmt.Errorf("ublk device %d of process %d: %w", left[0].ID, left[0].PID, errServed)
	}
	return left, served
}

// Sweep deletes the devices of this owner that nobody wants: those left by a process before us whose disk keep does
// not name. Devices of others are not touched, nor are those that are being served. It returns how many.
func (s *Server) Sweep(keep []string) (int, error) {
	wanted := map[uint64]bool{}
	for _, name := range keep {
		wanted[diskCookie(s.owner, name)] = true
	}
	list, err := s.owned()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, i := range list {
		if wanted[i.Cookie] || s.serving(i.Cookie) || i.State == stateLive {
			continue
		}
		if discardErr := s.discard(i); discardErr != nil {
			err = errors.Join(err, discardErr)
			continue
		}
		n++
	}
	return n, err
}

func (s *Server) serving(cookie uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, is := s.mu.cookies[cookie]
	return is
}

// discard deletes a device that nobody serves, or soon nobody any more. Its users get EIO.
func (s *Server) discard(i devInfo) error {
	if i.State == stateLive {
		_ = poll(context.Background(), quiesceLimit, func() (bool, error) {
			now, err := s.control.info(i.ID)
			if err == nil || gone(now, err) {
				i.State = now.State
			}
			return i.State != stateLive, err
		})
	}
	if i.State == stateLive {
		return fmt.Errorf("ublk device %d of process %d: %w", i.ID, i.PID, errServed)
	}
	s.o.Log.Info("removing a ublk device that was left over", "device", i.ID, "state", i.State)
	if err := s.control.stop(i.ID); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	unmark(i.ID)
	if err := s.control.drop(i.ID); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// fits tells whether a left device can go on as this disk: nothing of its shape can be changed any more but the size, and
// that not everywhere. One that shows the disk smaller than it is (it has grown) goes on as it is: its users have it open.
func (d *Device) fits(i devInfo) (bool, error) {
	if i.State == stateDead || i.Flags&(flagUserCopy|flagRecovery) != flagUserCopy|flagRecovery {
		return false, nil
	}
	p, err := d.s.control.params(i.ID)
	if err != nil {
		return false, err
	}
	want := d.params()
	return p.basic.logicalShift == want.basic.logicalShift && p.basic.attrs&attrReadOnly == want.basic.attrs&attrReadOnly &&
		p.basic.devSectors <= want.basic.devSectors, nil
}

// recover takes a device back. On an error it stays QUIESCED: for another try, or once workers have its tags for the
// next process.
func (d *Device) recover(ctx context.Context, i devInfo) error {
	t := d.s.steps(d.name)
	if err := d.granted(i); err != nil {
		return err
	}
	if err := d.s.startRecovery(ctx, i.ID); err != nil {
		return err
	}
	t.step("recovery")
	if err := d.serve(ctx); err != nil {
		if d.attached == 0 {
			err = errors.Join(err, d.closeChar())
		}
		return err
	}
	t.step("serve")
	if err := d.s.control.endRecovery(i.ID); err != nil {
		return err
	}
	t.step("end")
	d.s.taken(d.cookie)
	if d.info.Flags&flagUpdateSize != 0 {
		if err := d.s.control.resize(i.ID, d.disk.Size()); err != nil { // no reason to let its users down
			d.s.o.Log.Warn("a disk's users may see its old size until it is attached again", "disk", d.name, "err", err)
		}
	}
	t.done("ublk device taken back", "device", i.ID, "zeroCopy", d.zeroCopy)
	return nil
}

// startRecovery waits for the last references of the dead process. EINVAL, of a device that fits: 6.12 does not begin
// twice, and whoever began has lost the answer, or died before the end.
func (s *Server) startRecovery(ctx context.Context, id uint32) error {
	return poll(ctx, quiesceLimit, func() (bool, error) {
		err := s.control.startRecovery(id)
		if errors.Is(err, unix.EINVAL) {
			err = nil
		}
		return err == nil, err
	}, unix.EBUSY, unix.EINTR)
}
