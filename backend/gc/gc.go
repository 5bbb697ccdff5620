// Package gc deletes the packs and map pages that no volume, snapshot, image or deleted root names any more.
//
// # Mark and sweep
//
//	now := the store's clock
//	list the roots: volumes/, then images/, then trash/     <-----------.
//	read each that is new or has changed, mark all that it names        | once more, and again while a root
//	------------------------------------------------------------------- ' that was listed was gone when read
//	delete the trash roots older than Grace
//	list packs/ and maps/; delete what is not marked and is older than Grace, until now + Grace/4
//
// Tombstones stay: see manifest.Manifest.Tombstone.
//
// Nothing is deleted when a root or a page can't be read or has a version that this program does not know.
//
// # Why nothing live is missed
//
// All ages are by the store's own clock. An object that is young is kept, marked or not, so what matters is an object X older than
// Grace that a root will name after the sweep. Writers name new objects within Grace/4 of writing them (manifest.Cell.Publish), so X
// was named by some root when the mark began, and has been by some root ever since, for an unnamed object never comes back (a
// salvage, which starts from an old manifest, copies such: see volume/hold.go). Say root R named X when the first list was made.
//
//   - R still names X when it is read: marked.
//   - R was deleted: its copy in trash/ was there before [Trash copies first], stays for Grace, and is listed after R's place is.
//     When the list was older than the deletion, R was gone when read, or a tombstone with another ETag: the whole is done once more.
//   - R dropped X between the list and the read. Then X lives on only in what was copied from R before: a snapshot or an image,
//     because forks and rollbacks start from those; and its PUT was settled before R's next began. So it is in the second list,
//     or its copy in trash/ is. These never change: when read they still name X.
//
// So a second list that shows no root that vanishes is enough. [Listing until no manifest has changed would never end on a store with a
// thousand volumes that upload every ten seconds.] Names are random, so a delete that arrives late hits nothing new.
//
// # A shorter Grace
//
// Then the time does not tell any more that an object which nothing names is garbage: its writer may be in the middle of an update, or
// waiting for a store that was away. So Run asks who may be writing: every manifest must be closed, deleted, or of a writer that is
// Quiet, and nobody may have announced a new volume (manifest.Announce). Say X is older than start-Grace and the writer of X names it
// after the sweep.
//
//   - Its manifest was open when it was read last: refused, unless its writer was quiet. A writer that was had named X by then, or never
//     will: what it wrote since is younger than start. So X is in the lists, which came after.
//   - Its manifest was closed then: closing it was an update, so what was sent before it comes to nothing. Whoever opened the volume
//     since has written nothing older than start.
//   - There was no manifest when the last list was made. Then the announcement, which is older than X, was there when those were listed,
//     before the roots, and only the making of the volume takes it away.
//
// The package holds no locks. Runs may overlap, on one host or on several.
package gc

import (
	"context"
	"fmt"
	"time"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
)

// Options of a Run.
type Options struct {
	// Grace is how long an object is kept although nothing names it; 0 means manifest.Grace. A shorter one is refused, with an
	// OpenError, unless nobody may be about to name what is as old: see the package comment.
	Grace time.Duration
	// Quiet, if not nil, is asked once by a Run with a short Grace. It returns the incarnations (manifest.Manifest.Log) of those
	// writers in this process that have nothing under way: the store's manifest names all they have written and may yet name.
	Quiet func() map[[16]byte]bool
	// DryRun reports and deletes nothing.
	DryRun bool
	// Progress, if not nil, is called now and then by the goroutine that called Run.
	Progress func(Report)
}

// Report is what a Run found and did, or would have done. Counts are objects.
type Report struct {
	Roots   int // read: volumes and their tombstones, snapshots, images, trash
	Expired int // trash roots older than Grace, deleted
	Live    int // packs and pages that a root names
	Kept    int // not named, but younger than Grace or of a name that is not ours
	Deleted int
	Bytes   int64 // of the deleted
}

// Run collects garbage once. It returns what it did even when it returns an error. Errors are those of the store, manifest.ErrDamaged,
// manifest.ErrVersion and *OpenError (nothing was deleted), or manifest.ErrLate (it took longer than Grace/4; what is left waits for
// the next run).
func Run(ctx context.Context, st store.Store, o Options) (Report, error) {
	if o.Grace == 0 {
		o.Grace = manifest.Grace
	}
	ctx = store.With(ctx, store.GC)
	local := time.Now()
	start, err := st.Now(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("collect garbage: %w", err)
	}
	r := &run{Options: o, st: st, start: start, local: local}
	m := newMarker(r)
	if o.Grace < manifest.Grace {
		err = r.ask(ctx)
	}
	if err == nil {
		err = m.mark(ctx)
	}
	if err == nil {
		err = r.writers.closed()
	}
	if err == nil {
		err = r.expire(ctx, m.expired)
	}
	if err == nil {
		err = r.sweep(ctx, m.live)
	}
	if err != nil {
		return r.report, fmt.Errorf("collect garbage: %w", err)
	}
	return r.report, nil
}

// run is one Run.
type run struct {
	Options
	st      store.Store
	start   time.Time // by the store's clock
	local   time.Time // just before
	report  Report
	writers writers
}

func (r *run) old(modified time.Time) bool { return modified.Before(r.start.Add(-r.Grace)) }

func (r *run) progress() {
	if r.Progress != nil {
		r.Progress(r.report)
	}
}

// inTime returns ErrLate when the marks are too old to delete by. Both local clocks count [one stops while the machine sleeps, the
// other may be set], and the store's [a paused virtual machine notices nothing].
func (r *run) inTime(ctx context.Context) error {
	now, err := r.st.Now(ctx)
	if err != nil {
		return err
	}
	limit := r.Grace / 4
	if now.Sub(r.start) > limit || time.Since(r.local) > limit || time.Now().Round(0).Sub(r.local.Round(0)) > limit {
		return fmt.Errorf("%w: the marks are from %s", manifest.ErrLate, r.start.UTC().Format(time.RFC3339))
	}
	return nil
}
