//go:build torch

package model

import (
	"slices"

	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

// Inputs is a packed batch on the device.
type Inputs struct {
	ids, positions torch.Tensor // int64 [N]
	types          torch.Tensor // int64 [N]; none: all are 0
	starts         torch.Tensor // int32 [B+1], on the host
	first          torch.Tensor // int64 [B], rows of the first tokens
	keys, firstKey torch.Tensor // int64 [N] and [B], what the dropout of a token depends on; none in evaluation
}

func (in Inputs) drop(p float64, site int64) torch.Dropout {
	return dropout(in.keys, p, site)
}

// dropFirst is drop for a tensor that has a row for each first token.
func (in Inputs) dropFirst(p float64, site int64) torch.Dropout {
	return dropout(in.firstKey, p, site)
}

func dropout(keys torch.Tensor, p float64, site int64) torch.Dropout {
	if keys.IsNone() {
		return torch.Dropout{}
	}
	return torch.Dropout{Keys: keys, Site: site, P: p}
}

// Pack lays sequences one after the other. rows, where it is not nil, names each sequence's row in the data set, and turns
// dropout on: it then depends on (seed, step, row) and the place in model and sequence, so on nothing that packing or
// splitting the batch could change.
func (m *Model) Pack(s *torch.Scope, seqs []train.Sequence, rows []int64, seed, step int64) Inputs {
	var ids, positions, types, first, keys, firstKey []int64
	typed := m.Config.Typed(seqs)
	starts := []int32{0}
	base := mix(mix(uint64(seed)) ^ uint64(step))
	for i, seq := range seqs {
		first = append(first, int64(len(ids)))
		for _, id := range seq.IDs {
			ids = append(ids, int64(id))
		}
		if typed {
			types = slices.Grow(types, len(seq.IDs))[:len(ids)]
			for t, typ := range seq.Types {
				types[int(first[i])+t] = int64(typ)
			}
		}
		positions = m.Config.AppendPositions(positions, seq.IDs)
		starts = append(starts, int32(len(ids)))
		if rows == nil {
			continue
		}
		row := mix(base + uint64(rows[i]))
		firstKey = append(firstKey, int64(mix(row)))
		for t := range seq.IDs {
			keys = append(keys, int64(mix(row+uint64(t))))
		}
	}
	n, b := int64(len(ids)), int64(len(seqs))
	in := Inputs{
		ids: torch.Of(s, ids, n), positions: torch.Of(s, positions, n),
		starts: torch.Of(s, starts, b+1), first: torch.Of(s, first, b),
	}
	if typed {
		in.types = torch.Of(s, types, n)
	}
	if rows != nil {
		in.keys, in.firstKey = torch.Of(s, keys, n), torch.Of(s, firstKey, b)
	}
	return in
}

// mix is splitmix64: neighbouring numbers become unrelated ones.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
