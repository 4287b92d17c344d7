//go:build torch

package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

// Engine is a train.Engine on the CPU.
type Engine struct {
	spec     train.Spec
	config   model.Config
	layout   *model.Layout
	identity train.Identity

	thread *torch.Thread
	scope  *torch.Scope // owns what lives as long as the engine
	model  *model.Model
	buf    model.Buffers
	anchor torch.Tensor
	adam   torch.Adam // the moments, too

	stats  []train.StepStats // since the last Sync
	frozen bool              // a step was not finite
	closed bool
}

var _ train.OpenFunc = Open

// Open reads a model folder and makes an engine for it, on a GPU where there is one. It satisfies train.OpenFunc.
func Open(ctx context.Context, spec train.Spec) (train.Engine, error) {
	if useGPU() {
		g, err := openGPU(ctx, spec, 0)
		if err != nil {
			return nil, err
		}
		return g, nil
	}
	e, err := open(ctx, spec)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// readSpec checks a spec with its model's config, and resolves the precision for a CPU.
func readSpec(spec *train.Spec) (model.Config, string, error) {
	precision, err := checkSpec(spec)
	if err != nil {
		return model.Config{}, "", err
	}
	config, err := model.ReadConfig(spec.ModelDir)
	if err != nil {
		return model.Config{}, "", err
	}
	if spec.MaxLength > config.MaxLength() {
		return model.Config{}, "", &train.ConfigError{
			File: filepath.Join(spec.ModelDir, "config.json"), Field: "max_position_embeddings",
			Problem: fmt.Sprintf("has room for %d tokens, the recipe's max_length is %d", config.MaxLength(), spec.MaxLength),
		}
	}
	return config, precision, nil
}

func open(ctx context.Context, spec train.Spec) (*Engine, error) {
	config, precision, err := readSpec(&spec)
	if err != nil {
		return nil, err
	}
	cores := runtime.GOMAXPROCS(0) // honours the container's quota
	thread, err := torch.NewThread(cores)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		spec: spec, config: config, layout: model.NewLayout(config, len(spec.Labels)), thread: thread, scope: torch.NewScope(),
		identity: train.Identity{
			Device: "cpu", InstructionSet: torch.InstructionSet(), Threads: cores, Libtorch: torch.Version, Precision: precision,
		},
	}
	if err := thread.Do(ctx, e.load); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// checkSpec resolves the precision and what may be left out.
func checkSpec(spec *train.Spec) (string, error) {
	if len(spec.Labels) < 2 {
		return "", fmt.Errorf("engine: got %d labels, want at least 2", len(spec.Labels))
	}
	if spec.MaxLength < 1 {
		return "", fmt.Errorf("engine: got max length %d, want at least 1", spec.MaxLength)
	}
	if spec.MicroStep < 1 {
		spec.MicroStep = max(1, spec.BatchSize)
	}
	switch spec.Precision {
	case "auto", "fp32", "tf32": // TF32 is a licence to round, which a CPU does not make use of
		return "fp32", nil
	case "bf16":
		return "bf16", nil
	default:
		return "", fmt.Errorf("engine: got precision %q, want auto, fp32, tf32 or bf16", spec.Precision)
	}
}

// load allocates the buffers, reads the weights and makes the model.
func (e *Engine) load() error {
	s, l := e.scope, e.layout
	flat := func(dtype torch.DType, n int64) torch.Tensor { return s.Zeros(dtype, torch.CPU, n) }
	e.buf.Value = flat(torch.Float32, l.Size)
	if e.identity.Precision == "bf16" {
		e.buf.ShadowValue = flat(torch.BFloat, l.Head-l.Matrices)
	}
	if !e.spec.Inference {
		e.buf.Grad = flat(torch.Float32, l.Size)
		if !e.buf.ShadowValue.IsNone() {
			e.buf.ShadowGrad = flat(torch.BFloat, l.Head-l.Matrices)
		}
		e.adam = torch.Adam{
			Master: e.buf.Value, Grad: e.buf.Grad, M: flat(torch.Float32, l.Size), V: flat(torch.Float32, l.Size),
			Shadow: e.buf.ShadowValue, ShadowFrom: l.Matrices, Decayed: l.Decayed,
			Beta1: e.spec.AdamBeta1, Beta2: e.spec.AdamBeta2, Eps: e.spec.AdamEpsilon, Decay: e.spec.WeightDecay,
		}
	}
	e.anchor = s.Anchor(torch.CPU)
	values := s.Floats(e.buf.Value)
	if err := s.Err(); err != nil {
		return err
	}
	loaded, err := model.Load(e.spec.ModelDir, e.config, l, e.spec.Seed, e.spec.Inference, values)
	if err != nil {
		return err
	}
	if len(loaded.Drawn)+len(loaded.Dropped) > 0 {
		slog.Info("weights differ from the folder's", "dir", e.spec.ModelDir, "drawn", loaded.Drawn, "dropped", loaded.Dropped)
	}
	e.model = model.New(s, e.config, l, e.buf)
	e.refreshShadow()
	return s.Err()
}

// refreshShadow makes the bf16 weights those of the fp32 ones.
func (e *Engine) refreshShadow() {
	if !e.buf.ShadowValue.IsNone() {
		s := torch.NewScope()
		defer s.Close()
		s.Copy(e.buf.ShadowValue, s.Narrow(e.buf.Value, 0, e.layout.Matrices, e.layout.Head-e.layout.Matrices))
		e.scope.Fail(s.Err())
	}
}

// Identity says what the bits depend on besides the inputs.
func (e *Engine) Identity() train.Identity { return e.identity }

// Usage reports the peak bytes of the process. A CPU computes no padding: batches are packed.
func (e *Engine) Usage() train.Usage { return train.Usage{PeakHost: peakHost()} }

// Close frees the engine's memory and ends its thread. A second call does nothing.
func (e *Engine) Close() error {
	if e.closed {
		return nil
	}
	e.closed = true
	err := e.thread.Do(context.Background(), func() error { e.scope.Close(); return nil })
	e.thread.Close()
	torch.Trim()
	return err
}

// checkRows refuses sequences that the model cannot take, naming the row.
func checkRows(spec train.Spec, config model.Config, inputs []train.Sequence, name func(i int) string) error {
	typed := config.Typed(inputs)
	for i, seq := range inputs {
		if len(seq.IDs) < 1 || len(seq.IDs) > spec.MaxLength {
			return fmt.Errorf("engine: %s: %d tokens, want 1 to %d", name(i), len(seq.IDs), spec.MaxLength)
		}
		for _, id := range seq.IDs {
			if id < 0 || int(id) >= config.Vocab {
				return fmt.Errorf("engine: %s: token id %d is outside the model's vocabulary of %d", name(i), id, config.Vocab)
			}
		}
		if seq.Types != nil && len(seq.Types) != len(seq.IDs) {
			return fmt.Errorf("engine: %s: %d token types for %d tokens", name(i), len(seq.Types), len(seq.IDs))
		}
		for _, typ := range seq.Types {
			if typed && (typ < 0 || int(typ) >= config.TokenType) {
				return fmt.Errorf("engine: %s: token type %d is beyond the model's %d", name(i), typ, config.TokenType)
			}
		}
	}
	return nil
}
