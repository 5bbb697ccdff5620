package gc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"glidefs-appliance/backend/manifest"
	"glidefs-appliance/backend/store"
)

// Trash deletes a volume: its manifest moves to trash/<random>-<name>, where it keeps the volume's objects alive for the grace time.
// Snapshots of the volume are roots of their own and stay.
//
// First it marks the manifest as deleted, by the same conditional PUT as a writer. From then on a writer is fenced and nobody can
// attach, so that what is copied is the last word. Then, by another, a tombstone takes the manifest's place. [A DELETE, which no store
// makes conditional, could arrive when the name is in use again.] When it fails on the way, calling it again finishes the job; a
// second copy in the trash does no harm. Errors: store.ErrNotFound if there is no such volume, those of manifest.Read and
// manifest.Cell.Replace, and those of the store.
func Trash(ctx context.Context, st store.Store, name string) error {
	cell, err := manifest.ReadToDelete(ctx, st, name)
	if err != nil {
		return fmt.Errorf("delete volume %s: %w", name, err)
	}
	return TrashCell(ctx, st, cell)
}

// TrashCell is Trash of the volume as cell has it: manifest.ErrFenced if its manifest was replaced since.
func TrashCell(ctx context.Context, st store.Store, cell *manifest.Cell) (err error) {
	name := cell.Current().Name
	if !cell.Current().Deleted {
		err = cell.Replace(ctx, func(next *manifest.Manifest) { next.Deleted = true })
	}
	if err != nil {
		return fmt.Errorf("delete volume %s: %w", name, err)
	}
	if cell.Current().Tombstone() { // nothing was ever written to it
		return nil
	}
	if _, err := st.Put(ctx, trashKey(name), cell.Raw(), store.Condition{}); err != nil {
		return fmt.Errorf("delete volume %s: %w", name, err)
	}
	// Fenced: somebody else finished the job.
	if err := cell.Replace(ctx, (*manifest.Manifest).Bury); err != nil && !errors.Is(err, manifest.ErrFenced) {
		return fmt.Errorf("delete volume %s: %w", name, err)
	}
	return nil
}

func trashKey(name string) string {
	var random [8]byte
	rand.Read(random[:])
	return trashPrefix + hex.EncodeToString(random[:]) + "-" + name
}
