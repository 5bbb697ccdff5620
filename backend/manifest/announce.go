package manifest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"glidefs-appliance/backend/store"
)

// WritersPrefix is where the notes of Announce are.
const WritersPrefix = "writers/"

// Announce says in the store that objects are about to be written for a volume that is not there yet; m says of which, and by whom. A
// collector that waits less than Grace knows of other writers by their manifests, which are Open; this one has none. done takes the
// note away, at best: one that stays counts for the grace time. The key is random, so a DELETE that arrives late hits nothing else.
func Announce(ctx context.Context, st store.Store, m *Manifest) (done func(), err error) {
	note := m.Clone()
	note.Tail, note.Levels, note.Closed = nil, nil, false
	var random [8]byte
	rand.Read(random[:])
	key := WritersPrefix + hex.EncodeToString(random[:]) + "-" + m.Name
	if _, err := st.Put(ctx, key, note.Encode(), store.Condition{}); err != nil {
		return nil, fmt.Errorf("announce %s: %w", m.Name, err)
	}
	return func() { _ = st.Delete(ctx, key) }, nil
}
