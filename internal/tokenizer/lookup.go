package tokenizer

import (
	"encoding/binary"
	"math/bits"
)

// words finds the id of a whole word. It is an open hash table over one string of all words: a map of strings costs
// twice the time.
type words struct {
	slots []wordSlot // a power of two of them, at most half full
	text  string
	ends  []uint32 // of each word in text
	ids   []int32
}

type wordSlot struct {
	hash uint32
	word uint32 // its place in ends plus one; 0 is an empty slot
}

// newWords takes the words and their ids. Their bytes must not exceed 4 GiB.
func newWords(list []string, ids []int32) *words {
	w := &words{slots: make([]wordSlot, 1<<bits.Len(uint(2*len(list)))), ids: ids, ends: make([]uint32, 1, len(list)+1)}
	size := 0
	for _, s := range list {
		size += len(s)
	}
	text := make([]byte, 0, size)
	for i, s := range list {
		text = append(text, s...)
		w.ends = append(w.ends, uint32(len(text)))
		hash := hashWord([]byte(s))
		at := int(hash) & (len(w.slots) - 1)
		for w.slots[at].word != 0 {
			at = (at + 1) & (len(w.slots) - 1)
		}
		w.slots[at] = wordSlot{hash, uint32(i + 1)}
	}
	w.text = string(text)
	return w
}

// find returns the id of a word, or -1.
func (w *words) find(word []byte) int32 {
	hash := hashWord(word)
	for at := int(hash); ; at++ {
		s := w.slots[at&(len(w.slots)-1)]
		if s.word == 0 {
			return -1
		}
		if s.hash == hash && w.text[w.ends[s.word-1]:w.ends[s.word]] == string(word) {
			return w.ids[s.word-1]
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
	slots []uint64 // parent<<40 | byte<<32 | child; 0 is empty
	shift uint     // of a product of 64 bits, leaving a place in slots
	ids   []int32  // of the piece that ends in each node, or -1
}

// The two roots: pieces at the start of a word, and those that continue it.
const (
	headRoot = 0
	tailRoot = 1

	maxNodes = 1 << 24
)

func newTrie(bytes int) *trie {
	size := bits.Len(uint(2*bytes + 16))
	return &trie{slots: make([]uint64, 1<<size), shift: uint(64 - size), ids: []int32{-1, -1}}
}

// place returns where the child of a node is kept, or would be.
func (t *trie) place(node uint32, c byte) (at int, child uint32) {
	key := uint64(node)<<8 | uint64(c)
	for at = int(key * 0x9e3779b97f4a7c15 >> t.shift); ; at++ {
		at &= len(t.slots) - 1
		s := t.slots[at]
		if s == 0 || s>>32 == key {
			return at, uint32(s)
		}
	}
}

// add puts a piece below one of the roots. It reports false when the trie is full.
func (t *trie) add(root uint32, piece string, id int32) bool {
	node := root
	for i := range len(piece) {
		at, child := t.place(node, piece[i])
		if child == 0 {
			if len(t.ids) == maxNodes {
				return false
			}
			child = uint32(len(t.ids))
			t.ids = append(t.ids, -1)
			t.slots[at] = (uint64(node)<<8|uint64(piece[i]))<<32 | uint64(child)
		}
		node = child
	}
	t.ids[node] = id
	return true
}

// longest returns the longest piece that word starts with, and its length; -1 and 0 if there is none.
func (t *trie) longest(root uint32, word []byte) (id int32, n int) {
	id = -1
	node := root
	for i, c := range word {
		_, node = t.place(node, c)
		if node == 0 {
			break
		}
		if t.ids[node] >= 0 {
			id, n = t.ids[node], i+1
		}
	}
	return id, n
}
