package tokenizer

import (
	"encoding/binary"
	"math/bits"
)

// words finds the id of a whole word. It is an open hash table, a map of strings costs twice the time: most of that time
// is spent waiting for memory, so a word, its length and its id lie together, and neighbouring ids near each other.
type words struct {
	slots   []wordSlot // a power of two of them, at most half full
	entries []byte     // id (4 bytes), length (2 bytes) and bytes of each word
}

type wordSlot struct {
	hash uint32
	at   uint32 // in entries, plus one; 0 is an empty slot
}

const maxWord = 1<<16 - 1 // bytes

// newWords takes the words, of at most maxWord bytes each and 4 GiB together, and their ids.
func newWords(list []string, ids []int32) *words {
	w := &words{slots: make([]wordSlot, 1<<bits.Len(uint(2*len(list))))}
	for i, s := range list {
		hash := hashWord([]byte(s))
		at := int(hash) & (len(w.slots) - 1)
		for w.slots[at].at != 0 {
			at = (at + 1) & (len(w.slots) - 1)
		}
		w.slots[at] = wordSlot{hash, uint32(len(w.entries) + 1)}
		w.entries = binary.LittleEndian.AppendUint32(w.entries, uint32(ids[i]))
		w.entries = binary.LittleEndian.AppendUint16(w.entries, uint16(len(s)))
		w.entries = append(w.entries, s...)
	}
	return w
}

// find returns the id of a word, or -1.
func (w *words) find(word []byte) int32 {
	hash := hashWord(word)
	for at := int(hash); ; at++ {
		s := w.slots[at&(len(w.slots)-1)]
		if s.at == 0 {
			return -1
		}
		if s.hash != hash {
			continue
		}
		e := w.entries[s.at-1:]
		if n := int(binary.LittleEndian.Uint16(e[4:])); n == len(word) && string(e[6:6+n]) == string(word) {
			return int32(binary.LittleEndian.Uint32(e))
		}
	}
}

// hashWord hashes eight bytes at a time; the last eight may overlap those before.
func hashWord(b []byte) uint32 {
	const k = 0x9e3779b97f4a7c15 // odd, and its bits look random
	n := len(b)
	h := uint64(n)
	switch {
	case n >= 8:
		tail := binary.LittleEndian.Uint64(b[n-8:])
		for ; len(b) > 8; b = b[8:] {
			h = mix((h ^ binary.LittleEndian.Uint64(b)) * k)
		}
		h ^= tail
	case n >= 4:
		h ^= uint64(binary.LittleEndian.Uint32(b))<<8 ^ uint64(binary.LittleEndian.Uint32(b[n-4:]))<<32
	case n > 0:
		h ^= uint64(b[0])<<8 | uint64(b[n/2])<<16 | uint64(b[n-1])<<24
	}
	return uint32(mix(h * k))
}

func mix(h uint64) uint64 { return h ^ h>>32 }

// trie finds the longest piece that a text starts with, byte by byte. Children are kept in one open hash table by their
// parent's node and the byte.
type trie struct {
	slots []trieSlot // a power of two of them, at most half full
	shift uint       // of a product of 64 bits, leaving a place in slots
	ids   []int32    // of the piece that ends in each node, or -1
}

type trieSlot struct {
	key   uint32 // parent's node and the byte
	child uint32 // 0 is an empty slot; isPiece is set if a piece ends here
}

// The two roots: pieces at the start of a word, and those that continue it.
const (
	headRoot = 0
	tailRoot = 1

	maxNodes = 1 << 24
	isPiece  = 1 << 31
)

func newTrie() *trie {
	t := &trie{ids: []int32{-1, -1}}
	t.resize(8)
	return t
}

// resize makes room for half as many children as there will be slots.
func (t *trie) resize(log uint) {
	old := t.slots
	t.slots, t.shift = make([]trieSlot, 1<<log), 64-log
	for _, s := range old {
		if s.child != 0 {
			*t.place(s.key) = s
		}
	}
}

// place returns the slot of a key, or the empty one where it would be.
func (t *trie) place(key uint32) *trieSlot {
	for at := int(uint64(key) * 0x9e3779b97f4a7c15 >> t.shift); ; at++ {
		if s := &t.slots[at&(len(t.slots)-1)]; s.child == 0 || s.key == key {
			return s
		}
	}
}

// add puts a piece that is not empty below one of the roots. It reports false when the trie is full.
func (t *trie) add(root uint32, piece string, id int32) bool {
	node := root
	var s *trieSlot
	for i := range len(piece) {
		if 2*len(t.ids) > len(t.slots) {
			t.resize(64 - t.shift + 1)
		}
		s = t.place(node<<8 | uint32(piece[i]))
		if s.child == 0 {
			if len(t.ids) == maxNodes {
				return false
			}
			*s = trieSlot{node<<8 | uint32(piece[i]), uint32(len(t.ids))}
			t.ids = append(t.ids, -1)
		}
		node = s.child &^ isPiece
	}
	if s != nil {
		s.child |= isPiece
		t.ids[node] = id
	}
	return true
}

// longest returns the longest piece that word starts with, and its length; -1 and 0 if there is none.
func (t *trie) longest(root uint32, word []byte) (id int32, n int) {
	node, found := root, uint32(0)
	for i, c := range word {
		node = t.place(node<<8 | uint32(c)).child
		if node == 0 {
			break
		}
		if node&isPiece != 0 {
			node &^= isPiece
			found, n = node, i+1
		}
	}
	if n == 0 {
		return -1, 0
	}
	return t.ids[found], n
}
