package gc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"glidefs-appliance/backend/pack"
	"glidefs-appliance/backend/store"
)

const (
	// burst is how many objects are deleted between two looks at the clocks, deleters how many at the same time.
	burst    = 256
	deleters = 8
)

// expire deletes trash roots. It comes before the sweep, so that no root is left that names what the sweep deletes.
func (r *run) expire(ctx context.Context, roots []store.Info) error {
	for len(roots) > 0 {
		n := min(burst, len(roots))
		if err := r.remove(ctx, roots[:n]); err != nil {
			return err
		}
		r.report.Expired += n
		roots = roots[n:]
	}
	return nil
}

// sweep deletes what is neither live nor young.
func (r *run) sweep(ctx context.Context, live map[[32]byte]struct{}) error {
	var dead []store.Info
	for _, prefix := range []string{"packs/", "maps/"} {
		for info, err := range r.st.List(ctx, prefix, "") {
			if err != nil {
				return err
			}
			if !r.dead(info, live) {
				continue
			}
			if dead = append(dead, info); len(dead) == burst {
				if err := r.delete(ctx, dead); err != nil {
					return err
				}
				dead = dead[:0]
			}
		}
	}
	return r.delete(ctx, dead)
}

// dead tells whether an object is garbage. A name that this program would not give is none of its business.
func (r *run) dead(info store.Info, live map[[32]byte]struct{}) bool {
	name, err := pack.ParseHash(info.Key[strings.LastIndexByte(info.Key, '/')+1:])
	if _, ok := live[name]; ok && err == nil {
		r.report.Live++
		return false
	}
	if err != nil || !r.old(info.Modified) {
		r.report.Kept++
		return false
	}
	return true
}

func (r *run) delete(ctx context.Context, dead []store.Info) error {
	if len(dead) == 0 {
		return nil
	}
	if err := r.remove(ctx, dead); err != nil {
		return err
	}
	for _, info := range dead {
		r.report.Bytes += info.Size
	}
	r.report.Deleted += len(dead)
	r.progress()
	return nil
}

// remove deletes a burst of objects, a few at a time, unless it is too late or a DryRun.
func (r *run) remove(ctx context.Context, objects []store.Info) error {
	if r.DryRun {
		return nil
	}
	if err := r.inTime(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, deleters)
	for i := range deleters {
		wg.Go(func() {
			for j := i; j < len(objects) && errs[i] == nil; j += deleters {
				if err := r.st.Delete(ctx, objects[j].Key); err != nil {
					errs[i] = fmt.Errorf("delete %s: %w", objects[j].Key, err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
