package train

import "math/rand/v2"

// Order returns the row order of an epoch (0-based): a permutation of [0, n) that is a function of (seed, epoch)
// alone, so that no generator state needs to be saved. It takes 4 bytes a row.
func Order(seed int64, epoch, n int) []int32 {
	// PCG's stream is specified by math/rand/v2 and does not change between Go versions; Shuffle's use of it
	// could, so the Fisher-Yates loop is spelled out here on Uint64 alone.
	src := rand.NewPCG(uint64(seed), uint64(epoch)+0x9e3779b97f4a7c15)
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	for i := n - 1; i > 0; i-- {
		j := below(src, uint64(i)+1)
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// below draws uniformly from [0, n), by rejection so that no value is favoured.
func below(src *rand.PCG, n uint64) uint64 {
	limit := -n % n // 2^64 mod n: values under it would make the low results likelier
	for {
		if v := src.Uint64(); v >= limit {
			return v % n
		}
	}
}
