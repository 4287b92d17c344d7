//go:build torch

package native

// #include <stdlib.h>
// #include "cuda.h"
import "C"

import "unsafe"

// CardConfig is a model on a device. The enumerations are cuda.h's.
type CardConfig struct {
	Device                                        int // -1: the CPU
	Precision, Type, Activation                   int
	Layers, Heads, Hidden, Inner, Labels          int
	Vocab, Positions, Types, WordPad, PositionPad int
	Size, Tables, Decayed                         int64
	Offsets                                       []int64
	NormEps                                       float64
	DropHidden, DropAttention, DropAttended       float64
	DropHead, Beta1, Beta2, AdamEps, Decay, Clip  float64
	MaxLength, MaxInts, MaxRows                   int
	Train                                         bool
	Plugin, PluginHash                            string
}

// CardInfo is what a device says of itself.
type CardInfo struct {
	Name         string
	Major, Minor int
}

// Card is a model on a device, with its optimizer. All calls are made on the thread that opened it.
type Card struct{ c *C.dt_card }

// Copy is weights and moments, copied.
type Copy struct{ c *C.dt_copy }

// OpenCard allocates what a model needs on its device, all zero.
func OpenCard(c CardConfig) (*Card, CardInfo, error) {
	plugin, hash := C.CString(c.Plugin), C.CString(c.PluginHash)
	offsets := (*C.int64_t)(C.malloc(C.size_t(8 * len(c.Offsets))))
	defer func() {
		C.free(unsafe.Pointer(plugin))
		C.free(unsafe.Pointer(hash))
		C.free(unsafe.Pointer(offsets))
	}()
	copy(unsafe.Slice((*int64)(unsafe.Pointer(offsets)), len(c.Offsets)), c.Offsets)
	config := C.dt_card_config{
		device: C.int(c.Device), precision: C.int(c.Precision), _type: C.int(c.Type), activation: C.int(c.Activation),
		layers: C.int64_t(c.Layers), heads: C.int64_t(c.Heads), hidden: C.int64_t(c.Hidden), inner: C.int64_t(c.Inner),
		labels: C.int64_t(c.Labels), vocab: C.int64_t(c.Vocab), positions: C.int64_t(c.Positions), types: C.int64_t(c.Types),
		word_pad: C.int64_t(c.WordPad), position_pad: C.int64_t(c.PositionPad),
		size: C.int64_t(c.Size), tables: C.int64_t(c.Tables), decayed: C.int64_t(c.Decayed), offsets: offsets,
		norm_eps: C.double(c.NormEps), drop_hidden: C.double(c.DropHidden), drop_attention: C.double(c.DropAttention),
		drop_attended: C.double(c.DropAttended), drop_head: C.double(c.DropHead),
		beta1: C.double(c.Beta1), beta2: C.double(c.Beta2), adam_eps: C.double(c.AdamEps), decay: C.double(c.Decay), max_norm: C.double(c.Clip),
		max_length: C.int64_t(c.MaxLength), max_ints: C.int64_t(c.MaxInts), max_rows: C.int64_t(c.MaxRows), train: b2i(c.Train),
		plugin: plugin, plugin_hash: hash,
	}
	var card *C.dt_card
	var info C.dt_card_info
	if err := take(C.dt_card_open(&card, &config, &info)); err != nil {
		return nil, CardInfo{}, err
	}
	return &Card{card}, CardInfo{C.GoString(&info.name[0]), int(info.major), int(info.minor)}, nil
}

// Close frees the device's memory.
func (c *Card) Close() { C.dt_card_close(c.c) }

// Stage gives memory for the next batch of n ints.
func (c *Card) Stage(n int) ([]int32, error) {
	var p *C.int32_t
	if err := take(C.dt_card_stage(c.c, &p)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*int32)(unsafe.Pointer(p)), n), nil
}

// Run copies the staged batch of n ints, with token types or without, and runs it.
func (c *Card) Run(kind, rows, tokens, maxKey int, typed bool, n int, seed uint64) error {
	return take(C.dt_card_run(c.c, C.int(kind), C.int64_t(rows), C.int64_t(tokens), C.int64_t(maxKey), b2i(typed), C.int64_t(n), C.uint64_t(seed)))
}

// Logits reads the logits of the last evaluation into out, which has rows·labels elements.
func (c *Card) Logits(out []float32, rows int) error {
	return take(C.dt_card_logits(c.c, (*C.float)(unsafe.SliceData(out)), C.int64_t(rows)))
}

// Stats reads loss and norm of the first rows into out.
func (c *Card) Stats(out []float32) error {
	return take(C.dt_card_stats(c.c, (*C.float)(unsafe.SliceData(out)), C.int64_t(len(out)/2)))
}

// Write replaces weights and moments; nil leaves them.
func (c *Card) Write(w, m, v []float32) error {
	return take(C.dt_card_write(c.c, (*C.float)(unsafe.SliceData(w)), (*C.float)(unsafe.SliceData(m)), (*C.float)(unsafe.SliceData(v))))
}

// Gradients reads the sum of the micro-batches' gradients.
func (c *Card) Gradients(out []float32) error {
	return take(C.dt_card_gradients(c.c, (*C.float)(unsafe.SliceData(out))))
}

// Memory is the most bytes the allocator held on the device.
func (c *Card) Memory() (int64, error) {
	var peak C.int64_t
	err := take(C.dt_card_memory(c.c, &peak))
	return int64(peak), err
}

// Note is why graphs or own kernels were given up, once; else "".
func (c *Card) Note() string { return TakeString(unsafe.Pointer(C.dt_card_note(c.c))) }

// Copy copies weights and moments on the device.
func (c *Card) Copy() (*Copy, error) {
	var out *C.dt_copy
	err := take(C.dt_card_copy(c.c, &out))
	return &Copy{out}, err
}

// Fetch brings a copy of n elements each to the host. It may run on any thread.
func (c *Copy) Fetch(n int64) (w, m, v []float32, err error) {
	var p [3]*C.float
	if err := take(C.dt_copy_fetch(c.c, &p[0], &p[1], &p[2])); err != nil {
		return nil, nil, nil, err
	}
	floats := func(p *C.float) []float32 { return unsafe.Slice((*float32)(unsafe.Pointer(p)), n) }
	return floats(p[0]), floats(p[1]), floats(p[2]), nil
}

// Free frees the copy on host and device.
func (c *Copy) Free() { C.dt_copy_free(c.c) }
