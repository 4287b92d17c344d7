package train

import (
	"errors"
	"fmt"
)

// Sentinels an engine returns, wrapped with what it was doing.
var (
	// ErrNoLibtorch says that libtorch or one of its libraries cannot be loaded.
	ErrNoLibtorch = errors.New("libtorch cannot be loaded")
	// ErrOutOfMemory says that the device has too little memory for the micro-batch.
	ErrOutOfMemory = errors.New("device out of memory")
	// ErrDevice says that the device failed in a way that only a new process can mend (a sticky CUDA error).
	ErrDevice = errors.New("device lost")
)

// TensorError says what is wrong with one tensor of a weights file.
type TensorError struct {
	File    string // path or URI
	Tensor  string // name, or "" for the file as a whole
	Problem string // e.g. "shape [2 384], want [3 384]"
}

// Error names file, tensor and problem.
func (e *TensorError) Error() string {
	if e.Tensor == "" {
		return fmt.Sprintf("%s: %s", e.File, e.Problem)
	}
	return fmt.Sprintf("%s: tensor %s: %s", e.File, e.Tensor, e.Problem)
}

// ConfigError says which field of a model's config.json is not supported or wrong.
type ConfigError struct {
	File    string
	Field   string
	Problem string
}

// Error names file, field and problem.
func (e *ConfigError) Error() string { return fmt.Sprintf("%s: %s: %s", e.File, e.Field, e.Problem) }
