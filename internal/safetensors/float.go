package safetensors

import (
	"encoding/binary"
	"math"
)

// Float32s copies a tensor of type F32, F16 or BF16 out as float32; every value of the three is exact in it.
func Float32s(t Tensor) ([]float32, error) {
	width := map[string]int{"F32": 4, "F16": 2, "BF16": 2}[t.DType]
	if width == 0 {
		return nil, badTensor(t.Name, "got dtype %s, want F32, F16 or BF16", t.DType)
	}
	out := make([]float32, len(t.Data)/width)
	for i := range out {
		switch t.DType {
		case "F32":
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
		case "BF16":
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*i:])) << 16)
		default:
			out[i] = math.Float32frombits(halfBits(binary.LittleEndian.Uint16(t.Data[2*i:])))
		}
	}
	return out, nil
}

// halfBits widens an IEEE half to the bits of a float32.
func halfBits(h uint16) uint32 {
	sign := uint32(h>>15) << 31
	exponent, fraction := uint32(h>>10)&0x1f, uint32(h)&0x3ff
	switch {
	case exponent == 0x1f: // infinity or NaN
		return sign | 0xff<<23 | fraction<<13
	case exponent != 0:
		return sign | (exponent+127-15)<<23 | fraction<<13
	case fraction == 0:
		return sign
	}
	// A subnormal half is a normal float32: fraction × 2^-24, without rounding.
	return sign | math.Float32bits(float32(fraction)*0x1p-24)
}
