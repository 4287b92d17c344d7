// Package safetensors reads and writes the safetensors format without a tensor library.
package safetensors

// Tensor is one named array; Data is little-endian, row-major, and len(Data) == product(Shape) × size of DType.
type Tensor struct {
	Name  string
	DType string // "F32", "F16", "BF16", "I64", …, as in the file's header
	Shape []int64
	Data  []byte
}

// File is an opened safetensors file (or the shards of one), read by memory map.
type File struct{}
