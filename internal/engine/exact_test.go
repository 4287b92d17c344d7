//go:build torch

package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/train"
)

// withDropout copies a golden's folder and switches dropout on in its config.
func withDropout(t *testing.T, g *golden, p float64) string {
	t.Helper()
	return withConfig(t, g, map[string]any{"dropout": p, "attention_dropout": p, "seq_classif_dropout": p, "hidden_dropout_prob": p, "attention_probs_dropout_prob": p})
}

// withConfig copies a golden's folder with other values in its config.
func withConfig(t *testing.T, g *golden, fields map[string]any) string {
	t.Helper()
	dir := t.TempDir()
	var config map[string]any
	readJSON(t, filepath.Join(g.dir, "config.json"), &config)
	for field, value := range fields {
		config[field] = value
	}
	text, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644)
	}
	weights, err2 := os.ReadFile(filepath.Join(g.dir, "model.safetensors"))
	if err2 == nil {
		err2 = os.WriteFile(filepath.Join(dir, "model.safetensors"), weights, 0o644)
	}
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	return dir
}

// steps runs the golden's batches [from, to).
func steps(t *testing.T, g *golden, e *Engine, from, to int) []train.StepStats {
	t.Helper()
	for s := from; s < to; s++ {
		if err := e.Step(t.Context(), int64(s), g.Rates[s], g.batches[s]); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := e.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// snap writes a snapshot to files and opens them.
func snap(t *testing.T, e train.Engine) (weights, optimizer *safetensors.File) {
	t.Helper()
	s, err := e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	dir := t.TempDir()
	save := func(name string, get func() ([]safetensors.Tensor, error)) *safetensors.File {
		tensors, err := get()
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = safetensors.Write(f, nil, tensors)
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		file, err := safetensors.Open(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return file
	}
	return save("weights", s.Weights), save("optimizer", s.Optimizer)
}

// digest is the SHA-256 of weights and moments.
func digest(t *testing.T, e train.Engine) string {
	t.Helper()
	h := sha256.New()
	w, o := snap(t, e)
	for _, f := range []*safetensors.File{w, o} {
		for _, name := range f.Names() {
			x, err := f.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			h.Write(x.Data)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func eachPrecision(t *testing.T, f func(t *testing.T, precision string)) {
	for _, p := range []string{"fp32", "bf16"} {
		t.Run(p, func(t *testing.T) { f(t, p) })
	}
}

func TestResumedRunHasTheSameBits(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		eachPrecision(t, func(t *testing.T, precision string) {
			spec := g.spec()
			spec.ModelDir, spec.Precision = withDropout(t, g, 0.2), precision
			straight := openEngine(t, spec)
			wantStats := steps(t, g, straight, 0, 8)
			want := digest(t, straight)

			first := openEngine(t, spec)
			steps(t, g, first, 0, 3)
			weights, optimizer := snap(t, first)
			steps(t, g, first, 3, 5) // what a killed worker did after its checkpoint is not seen
			second := openEngine(t, spec)
			if err := second.Restore(t.Context(), weights, optimizer); err != nil {
				t.Fatal(err)
			}
			gotStats := steps(t, g, second, 3, 8)
			if got := digest(t, second); got != want {
				t.Errorf("resumed run ends with %s, the straight one with %s", got, want)
			}
			for i, st := range gotStats {
				if st != wantStats[3+i] {
					t.Errorf("step %d: %+v, want %+v", st.Step, st, wantStats[3+i])
				}
			}
		})
	})
}

// printDigest makes a second process of the test binary print the digest of a run.
const printDigest = "DURATUNE_TEST_PRINT_DIGEST"

func TestOtherProcessHasTheSameBits(t *testing.T) {
	g := readGolden(t, "testdata/bert")
	spec := g.spec()
	spec.ModelDir = os.Getenv(printDigest)
	if spec.ModelDir != "" {
		e := openEngine(t, spec)
		steps(t, g, e, 0, 5)
		t.Logf("digest %s", digest(t, e))
		return
	}
	spec.ModelDir = withDropout(t, g, 0.1)
	e := openEngine(t, spec)
	steps(t, g, e, 0, 5)
	want := digest(t, e)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), printDigest+"="+spec.ModelDir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "digest "+want) {
		t.Errorf("want digest %s, the other process says\n%s (%v)", want, out, err)
	}
}

func TestDropoutDoesNotDependOnTheMicroBatch(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		spec := g.spec()
		spec.ModelDir = withDropout(t, g, 0.3)
		want := steps(t, g, openEngine(t, spec), 0, 3)
		spec.MicroStep = 2
		got := steps(t, g, openEngine(t, spec), 0, 3)
		spec.Seed++
		other := steps(t, g, openEngine(t, spec), 0, 3)
		for i := range want {
			if d := math.Abs(float64(got[i].Loss - want[i].Loss)); d > 1e-5 {
				t.Errorf("step %d: losses differ by %v", i, d)
			}
			if got[i].Loss == other[i].Loss {
				t.Errorf("step %d: another seed gives the same loss", i)
			}
		}
	})
}

func TestStepThatIsNotFiniteChangesNothing(t *testing.T) {
	g := readGolden(t, "testdata/roberta")
	e := openEngine(t, g.spec())
	steps(t, g, e, 0, 2)
	weights, optimizer := snap(t, e)
	good := digest(t, e)

	gamma := e.layout.At("roberta.embeddings.LayerNorm.weight").Offset
	err := e.thread.Do(t.Context(), func() error {
		e.scope.Floats(e.buf.Value)[gamma] = float32(math.Inf(1))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	broken := digest(t, e)
	stats := steps(t, g, e, 2, 4)
	if len(stats) != 2 || stats[0].Finite || stats[1].Finite {
		t.Errorf("stats are %+v, want two steps that are not finite", stats)
	}
	if digest(t, e) != broken {
		t.Error("a step that was not finite changed weights or moments")
	}
	if err := e.Restore(t.Context(), weights, optimizer); err != nil {
		t.Fatal(err)
	}
	if digest(t, e) != good {
		t.Error("Restore did not bring the snapshot back")
	}
	if st := steps(t, g, e, 2, 3); !st[0].Finite {
		t.Errorf("after Restore: %+v", st[0])
	}
}

func TestBF16StaysNearFP32(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		spec := g.spec()
		spec.Precision = "bf16"
		for _, micro := range []int{6, 2} {
			spec.MicroStep = micro
			e := openEngine(t, spec)
			if got := e.Identity().Precision; got != "bf16" {
				t.Fatalf("precision is %s", got)
			}
			losses, _ := values[float32](t, g.file, "losses")
			var diff float64
			for i, st := range steps(t, g, e, 0, len(losses)) {
				diff = math.Max(diff, math.Abs(float64(st.Loss-losses[i])))
			}
			t.Logf("micro-batch %d: largest difference of losses: %.1e", micro, diff)
			if diff > 0.05 {
				t.Errorf("losses differ by %v from fp32's", diff)
			}
		}
	})
}

func TestThreadIsLeftAloneAfterClose(t *testing.T) {
	g := readGolden(t, "testdata/bert")
	e := openEngine(t, g.spec())
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Step(context.Background(), 0, 1e-3, g.batches[0]); err == nil {
		t.Error("Step after Close succeeds")
	}
}
