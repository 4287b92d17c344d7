package recipe

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Defaults is the recipe that a document is read over. What is required is empty in it. Training's defaults are those
// of Hugging Face's TrainingArguments, but for logging_steps and precision.
func Defaults() Recipe {
	return Recipe{
		Experiment: "duratune",
		Data: Data{
			Format: "auto", Text: "text", Label: "label", TestFraction: 0.2, SplitSeed: 42, ShuffleSeed: 22,
			CSV:   CSV{Delimiter: ",", Quote: `"`, Header: true},
			Split: Split{Dedupe: "none"},
			Rows:  Rows{OnError: "fail", MaxErrors: 0.01, Encoding: "utf-8", InvalidBytes: "error", MaxBytes: 16 << 20, MinClassRows: 1},
		},
		Model:     Model{Revision: "main"},
		Tokenizer: Tokenizer{MaxLength: 128, Padding: "max_length"},
		Train: Train{
			Epochs: 3, BatchSize: 8, EvalBatchSize: 8, GradientAccumulationSteps: 1,
			LearningRate: 5e-5, Schedule: "linear", AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1,
			LoggingSteps: 8, Precision: "auto", Seed: 42,
		},
		Signature: Signature{
			Inputs:      Texts("This is a test!", "And this is also a test."),
			ModelConfig: ModelConfig{BatchSize: 8},
		},
		Tracking:   Tracking{ModelName: "fine_tuned", PromoteIf: "passed", MaxP: 1},
		LoadTest:   LoadTest{RatePerSecond: 20, Duration: Duration(10 * time.Second), MaxP99: Duration(time.Second)},
		Checkpoint: Checkpoint{Keep: 1},
		Limits:     Limits{MaxWallTime: Duration(24 * time.Hour), MaxStepTime: Duration(time.Minute)},
	}
}

// freeze fills what depends on other fields.
func (r *Recipe) freeze() {
	if r.Data.Labels == nil {
		r.Data.Labels = []string{} // JSON's null is refused
	}
	if s := &r.Selection; s.Mode == "" && s.Metric != "" {
		s.Mode = map[bool]string{true: "min", false: "max"}[s.Metric == "eval_loss"]
	}
	if inputs := Defaults().Signature.Inputs; r.Data.TextPair != "" && slices.Equal(r.Signature.Inputs, inputs) {
		first, second := inputs[0].Text, inputs[1].Text
		r.Signature.Inputs = []Text{{first, second}, {second, first}}
	}
	if r.Signature.InputExample == nil && len(r.Signature.Inputs) > 0 {
		r.Signature.InputExample = slices.Clone(r.Signature.Inputs)
	}
}

// Digest is the SHA-256 of the frozen recipe's JSON, in hex.
func (r Recipe) Digest() (string, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("recipe %s: %w", r.Name, err)
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]), nil
}
