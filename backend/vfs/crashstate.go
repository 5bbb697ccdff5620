package vfs

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
)

// state is a file system between two changes: what a process sees, what the disk is sure to hold, and what may or
// may not be there after a power cut.
type state struct {
	nodes []node // by number; 0 is the root folder
	// entries are the changes to folders that are not durable yet, oldest first.
	entries []change
}

// node is a file or a folder. Numbers are not used again.
type node struct {
	folder bool

	now, durable map[string]int // folders

	live, disk image    // files
	behind     bool     // a sync failed: not all of live will come to the disk
	pending    []change // writes and size changes since the last sync, oldest first; size is that of live after it
}

const missing = -1

func newState() *state {
	return &state{nodes: []node{{folder: true, now: map[string]int{}, durable: map[string]int{}}}}
}

// fork returns an independent copy; contents are shared until written.
func (s *state) fork() *state {
	t := &state{nodes: slices.Clone(s.nodes), entries: slices.Clone(s.entries)}
	for i := range t.nodes {
		n := &t.nodes[i]
		n.now, n.durable = maps.Clone(n.now), maps.Clone(n.durable)
		n.live, n.disk = s.nodes[i].live.fork(), s.nodes[i].disk.fork()
		n.pending = slices.Clone(n.pending)
	}
	return t
}

// lookup finds a name. For a missing one the node is missing and the error ErrNotExist; the place is then where it
// can be made, or zero where its folder is missing too.
func (s *state) lookup(name string) (place, int, error) {
	at, node := place{}, 0
	for i, part := range split(name) {
		if node == missing {
			return place{}, missing, fs.ErrNotExist
		}
		if i > 0 && !s.nodes[node].folder {
			return place{}, missing, syscall.ENOTDIR
		}
		at = place{node, part}
		child, ok := s.nodes[node].now[part]
		if !ok {
			child = missing
		}
		node = child
	}
	if node == missing {
		return at, missing, fs.ErrNotExist
	}
	return at, node, nil
}

func (s *state) apply(ch *change) {
	switch ch.op {
	case OpMkdirAll:
		s.addNode(ch)
		s.entries = append(s.entries, *ch)
		s.syncFolder(ch.a.folder)
	case OpCreate:
		s.addNode(ch)
		s.entries = append(s.entries, *ch)
	case OpRemove, OpRename:
		s.enter(ch, nowEntries)
		s.entries = append(s.entries, *ch)
	case OpSyncDir:
		s.syncFolder(ch.node)
	case OpSync:
		n := &s.nodes[ch.node]
		n.sync(ch.lost)
	default:
		n := &s.nodes[ch.node]
		if ch.op == OpAllocate && ch.size <= n.live.size {
			return // reserves blocks; nothing that can be seen
		}
		n.live.change(ch)
		n.pending = append(n.pending, *ch)
	}
}

// sync makes durable what was written since the last one; one that fails forgets it.
func (n *node) sync(lost bool) {
	if n.behind = n.behind || lost; !n.behind {
		n.disk = n.live.fork()
	}
	for i := range n.pending {
		if n.behind && !lost {
			n.disk.change(&n.pending[i])
		}
	}
	n.pending = nil
}

func (s *state) addNode(ch *change) {
	n := node{folder: ch.folder}
	if ch.folder {
		n.now, n.durable = map[string]int{}, map[string]int{}
	}
	s.nodes = append(s.nodes, n)
	s.enter(ch, nowEntries)
}

func nowEntries(n *node) map[string]int     { return n.now }
func durableEntries(n *node) map[string]int { return n.durable }

// enter makes one change to folder entries, in what processes see or on the disk. On the disk an earlier change of
// the same node may be missing, so nothing is taken for granted but that a node has one name.
func (s *state) enter(ch *change, entries func(*node) map[string]int) {
	from := entries(&s.nodes[ch.a.folder])
	switch ch.op {
	case OpCreate, OpMkdirAll:
		from[ch.a.name] = ch.node
	case OpRemove:
		if from[ch.a.name] == ch.node {
			delete(from, ch.a.name)
		}
	case OpRename:
		to := entries(&s.nodes[ch.b.folder])
		isIt := func(_ string, node int) bool { return node == ch.node }
		maps.DeleteFunc(from, isIt)
		maps.DeleteFunc(to, isIt)
		to[ch.b.name] = ch.node
	}
}

// syncFolder makes durable every change to the folder and, so that no rename is torn, the earlier changes to the
// folders that these touch.
func (s *state) syncFolder(folder int) {
	touched := map[int]bool{folder: true}
	sync := make([]bool, len(s.entries))
	for i, ch := range slices.Backward(s.entries) {
		if touched[ch.a.folder] || ch.op == OpRename && touched[ch.b.folder] {
			sync[i] = true
			touched[ch.a.folder] = true
			if ch.op == OpRename {
				touched[ch.b.folder] = true
			}
		}
	}
	rest := s.entries[:0]
	for i := range s.entries {
		if sync[i] {
			s.enter(&s.entries[i], durableEntries)
		} else {
			rest = append(rest, s.entries[i])
		}
	}
	s.entries = rest
}

// cut chooses what the disk holds after a power cut now. All of it is durable in the result.
func (s *state) cut(rng *rand.Rand) *state {
	t := &state{nodes: make([]node, len(s.nodes))}
	for i := range s.nodes {
		t.nodes[i].folder = s.nodes[i].folder
		t.nodes[i].durable = maps.Clone(s.nodes[i].durable)
	}
	luck := newLuck(rng)
	for i := range s.entries {
		if luck.keep() {
			t.enter(&s.entries[i], durableEntries)
		}
	}
	t.settle(s, 0, luck)
	return t
}

// settle fills in what can be reached from a folder.
func (t *state) settle(s *state, folder int, luck luck) {
	n := &t.nodes[folder]
	n.now = maps.Clone(n.durable)
	for _, name := range sortedKeys(n.durable) {
		child := n.durable[name]
		if t.nodes[child].folder {
			t.settle(s, child, luck)
			continue
		}
		t.nodes[child].disk = s.nodes[child].cut(luck)
		t.nodes[child].live = t.nodes[child].disk.fork()
	}
}

// cut chooses the content of one file after a power cut.
func (n *node) cut(luck luck) image {
	img := n.disk.fork()
	sizes := []int64{img.size}
	for i := range n.pending {
		ch := &n.pending[i]
		sizes = append(sizes, ch.size)
		if luck.keep() {
			img.change(ch)
		} else if ch.op == OpWrite && luck.tear() {
			img.tear(ch, luck)
			img.truncate(max(img.size, min(ch.size, ch.off+int64(len(ch.data)))))
		}
	}
	if luck.tear() {
		img.truncate(sizes[luck.rng.IntN(len(sizes))])
	}
	return img
}

// luck decides what survives. Each cut has one of three moods, because the ends of the range, all kept and all
// lost, would not come up by chance among many changes.
type luck struct {
	rng  *rand.Rand
	mood int // 0: nothing survives, 1: everything, else: any mixture
}

func newLuck(rng *rand.Rand) luck { return luck{rng, rng.IntN(6)} }

func (l luck) keep() bool {
	return l.mood == 1 || l.mood > 1 && l.rng.IntN(2) == 0
}

// tear is asked for what keep did not keep whole.
func (l luck) tear() bool { return l.mood > 1 && l.rng.IntN(2) == 0 }

func sortedKeys(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
