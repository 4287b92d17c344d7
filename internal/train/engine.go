package train

import (
	"context"
	"time"

	"github.com/duratune/duratune/internal/safetensors"
)

// Sequence is a text, or a pair of texts, as the model sees it: unpadded, special tokens included.
type Sequence struct {
	IDs   []int32 // 1..max_length token ids
	Types []int8  // the token type of each id, for models that tell the two texts of a pair by it; nil: all are 0
}

// Batch is the rows of one global step, in order.
type Batch struct {
	Inputs []Sequence
	Labels []int64 // class index a row
	Rows   []int64 // row number in the data set; it keys the row's dropout and names it in errors
}

// StepStats is what one optimizer step did.
type StepStats struct {
	Step     int64   // 0-based global step
	Loss     float32 // mean cross-entropy of the batch, as Trainer's compute_loss
	GradNorm float32 // total L2 norm of the gradients before clipping
	Finite   bool    // false: loss or norm is NaN or Inf, and this and every later step changed nothing
}

// Engine holds one model with its optimizer on one device. It is used from one goroutine at a time.
//
// The numbers are functions of the weights, the batches and (seed, step) alone: an engine keeps no random state.
type Engine interface {
	// Step runs forward, backward, clipping and one AdamW update at the given learning rate. It may return before
	// the device is done. step keys the dropout.
	Step(ctx context.Context, step int64, lr float64, b Batch) error
	// Sync waits for the device and returns the steps done since the last Sync, in order.
	Sync(ctx context.Context) ([]StepStats, error)
	// Logits runs the model in evaluation mode and returns fp32 logits of shape [len(inputs)][num_labels], in order.
	// progress (may be nil) is told the rows finished so far.
	Logits(ctx context.Context, inputs []Sequence, progress func(done int)) ([][]float32, error)
	// Snapshot copies weights and optimizer state as of the last Step; training may go on meanwhile.
	Snapshot(ctx context.Context) (Snapshot, error)
	// Restore replaces weights and, where it is not nil, optimizer state. A missing, extra or misshapen tensor is a
	// *TensorError.
	Restore(ctx context.Context, weights, optimizer *safetensors.File) error
	// Identity says what the bits depend on besides the inputs.
	Identity() Identity
	// Usage reports what the engine has taken so far.
	Usage() Usage
	// Close frees the device. The engine may not be used afterwards.
	Close() error
}

// Snapshot is a copy of an engine's state at one step.
type Snapshot interface {
	// Weights waits for the copy and returns the tensors by their Hugging Face names, fp32.
	Weights() ([]safetensors.Tensor, error)
	// Optimizer returns AdamW's moments as exp_avg.<name> and exp_avg_sq.<name>, fp32; its step is the checkpoint's.
	Optimizer() ([]safetensors.Tensor, error)
	// Release frees the copy; the tensors returned may not be used afterwards.
	Release()
}

// Identity is everything the bits of a run depend on besides recipe and data. Equal identities give equal bits.
type Identity struct {
	Device         string `json:"device"`          // "cpu" or the GPU's model name
	InstructionSet string `json:"instruction_set"` // e.g. "AVX512"; compute capability on a GPU
	Threads        int    `json:"threads"`         // intra-op threads; 0 on a GPU
	Libtorch       string `json:"libtorch"`        // e.g. "2.11.0"
	Precision      string `json:"precision"`       // resolved: "fp32", "tf32" or "bf16"
}

// Usage is what an engine takes.
type Usage struct {
	PeakDevice int64   `json:"peak_device"` // bytes; 0 on a CPU
	PeakHost   int64   `json:"peak_host"`   // bytes of the process
	Padding    float64 `json:"padding"`     // share of the tokens computed in training that only filled up
}

// Spec is what an engine is opened with.
type Spec struct {
	ModelDir  string   // Hugging Face folder: config.json and model.safetensors (or shards with an index)
	Labels    []string // class names in index order; the head has len(Labels) outputs
	Inference bool     // no optimizer state; Step, Snapshot and Restore are errors

	MaxLength int    // longest sequence, in tokens
	Padding   string // "max_length": every batch has that width; "longest": the engine pads or packs as it likes
	BatchSize int    // rows a step
	EvalBatch int    // rows an evaluation batch; a hint
	MicroStep int    // rows a forward pass; BatchSize unless memory forbids

	MaxStep time.Duration // longest step or evaluation batch that is no sign of a hung device; 0: a minute

	Precision      string  // "auto", "fp32", "tf32" or "bf16"
	Seed           int64   // keys dropout and the initialisation of new tensors
	WeightDecay    float64 // applied as Trainer does: not to biases and layer norms
	AdamBeta1      float64
	AdamBeta2      float64
	AdamEpsilon    float64
	MaxGradNorm    float64 // 0: no clipping
	LabelSmoothing float64
}

// OpenFunc opens an engine. Errors: *TensorError, *ConfigError (the model folder), ErrNoLibtorch, ErrOutOfMemory, ErrDevice.
type OpenFunc func(ctx context.Context, spec Spec) (Engine, error)
