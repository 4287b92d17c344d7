// Package recipe is the input of a fine-tune: one strict JSON document, its defaults and its rules.
//
// [Decode] refuses unknown keys and wrong types by their JSON path, [Recipe.Defaults] fills what was left out, and
// [Recipe.Validate] collects every problem at once. Endpoints and secrets are never part of a recipe.
package recipe

// Recipe is the whole input of the FineTune workflow.
type Recipe struct {
	Name       string     `json:"name"`       // names the MLflow run; letters, digits, '.', '_' and '-'
	Experiment string     `json:"experiment"` // MLflow experiment, created if missing (default "duratune")
	Data       Data       `json:"data"`
	Model      Model      `json:"model"`
	Tokenizer  Tokenizer  `json:"tokenizer"`
	Train      Train      `json:"train"`
	Examples   []Example  `json:"examples,omitempty"` // labelled quick checks after the last epoch; a miss stops the run before the model is logged
	Signature  Signature  `json:"signature"`
	Tracking   Tracking   `json:"tracking"`
	LoadTest   LoadTest   `json:"load_test"`
	Checkpoint Checkpoint `json:"checkpoint"`
	Limits     Limits     `json:"limits"`
}

// Data says where the rows come from and how they are split.
type Data struct {
	Source       string   `json:"source"`        // hf://owner/name, s3://bucket/key, file:///absolute/path or file:path (below a data root of the worker)
	Format       string   `json:"format"`        // auto, tsv, csv, jsonl or parquet (default auto: by the file's name, then its content)
	Text         string   `json:"text"`          // column of the text (default "text")
	Label        string   `json:"label"`         // column of the label (default "label")
	Labels       []string `json:"labels"`        // class names in index order; an integer label is an index into it
	TestFraction float64  `json:"test_fraction"` // share of rows held out, (0, 1) (default 0.2)
	SplitSeed    int64    `json:"split_seed"`    // decides which rows are held out (default 42)
	ShuffleSeed  int64    `json:"shuffle_seed"`  // decides the stored order of the rows (default 22)
}

// Model names the base model.
type Model struct {
	Base     string `json:"base"`     // hf://owner/name, s3://bucket/prefix, file:///absolute/folder or file:folder (below a data root)
	Revision string `json:"revision"` // hub revision, pinned by Plan to the commit it resolves to (default "main")
}

// Tokenizer says how text becomes tokens.
type Tokenizer struct {
	MaxLength int    `json:"max_length"` // tokens a row at most, special tokens included, 2..512 (default 128)
	Padding   string `json:"padding"`    // max_length or longest (default max_length)
}

// Train is the training loop, by the names of Hugging Face's TrainingArguments.
type Train struct {
	Epochs                    int     `json:"epochs"`                      // (default 3)
	BatchSize                 int     `json:"batch_size"`                  // rows a step (default 8)
	EvalBatchSize             int     `json:"eval_batch_size"`             // (default 8)
	GradientAccumulationSteps int     `json:"gradient_accumulation_steps"` // batches a step (default 1)
	LearningRate              float64 `json:"learning_rate"`               // peak (default 5e-5)
	Schedule                  string  `json:"schedule"`                    // linear, cosine or constant (default linear)
	WarmupSteps               int     `json:"warmup_steps"`                // (default 0)
	WarmupRatio               float64 `json:"warmup_ratio"`                // share of all steps, used where warmup_steps is 0 (default 0)
	WeightDecay               float64 `json:"weight_decay"`                // not on biases and layer norms (default 0)
	AdamBeta1                 float64 `json:"adam_beta1"`                  // (default 0.9)
	AdamBeta2                 float64 `json:"adam_beta2"`                  // (default 0.999)
	AdamEpsilon               float64 `json:"adam_epsilon"`                // (default 1e-8)
	MaxGradNorm               float64 `json:"max_grad_norm"`               // clipping; 0 switches it off (default 1)
	LabelSmoothing            float64 `json:"label_smoothing"`             // [0, 1) (default 0)
	LoggingSteps              int     `json:"logging_steps"`               // (default 8)
	Precision                 string  `json:"precision"`                   // auto, fp32, tf32 or bf16 (default auto)
	Seed                      int64   `json:"seed"`                        // order of rows, dropout, new head (default 42)
}

// Example is a text and the label that the fine-tuned model must give it.
type Example struct {
	Text  string `json:"text"`
	Label string `json:"label"`
}

// Signature is what MLflow's infer_signature and input_example are given.
type Signature struct {
	Inputs       []string    `json:"inputs"`        // texts to run for the outputs (default two short sentences)
	InputExample []string    `json:"input_example"` // stored with the model (default: inputs)
	ModelConfig  ModelConfig `json:"model_config"`
}

// ModelConfig becomes the pyfunc flavor's config and the signature's params.
type ModelConfig struct {
	BatchSize int `json:"batch_size"` // (default 8)
}

// Tracking names what MLflow is told.
type Tracking struct {
	ModelName       string `json:"model_name"`       // LoggedModel (default "fine_tuned")
	RegisteredModel string `json:"registered_model"` // empty: nothing is registered
	Alias           string `json:"alias"`            // moved to the new version after the load test; needs registered_model
}

// LoadTest is the gate before a version is registered.
type LoadTest struct {
	RatePerSecond float64  `json:"rate_per_second"` // requests a second, open loop (default 20)
	Duration      Duration `json:"duration"`        // of the measured part (default "10s")
	MaxP99        Duration `json:"max_p99"`         // limit of the 99th percentile latency (default "1s")
	MaxErrorRate  float64  `json:"max_error_rate"`  // share of requests that may fail, [0, 1] (default 0)
}

// Checkpoint says how often a checkpoint is written within an epoch and how many are kept.
type Checkpoint struct {
	EverySteps int `json:"every_steps"` // 0: at the end of each epoch only (default 0)
}

// Limits bound the run.
type Limits struct {
	MaxWallTime Duration `json:"max_wall_time"` // from start to end, retries included (default "24h")
}
