// Package recipe is the input of a fine-tune: one strict JSON document, its defaults and its rules.
//
// [Decode] reads a document over [Defaults] and refuses unknown keys, wrong types and broken rules, all of them at
// once, each by its JSON path ([Problems]). What it returns is the frozen recipe: every field is set, it marshals to the
// same bytes each time, and decoding those gives it back. Endpoints and secrets are never part of a recipe.
//
// docs/recipe.md is made from the comments below.
package recipe

//go:generate go test -run TestReference -update

// Recipe is the whole input of the FineTune workflow.
type Recipe struct {
	Name       string     `json:"name"`       // names the MLflow run: 1 to 100 letters, digits, '.', '_' and '-'; required
	Experiment string     `json:"experiment"` // MLflow experiment, created if missing
	Data       Data       `json:"data"`
	Model      Model      `json:"model"`
	Tokenizer  Tokenizer  `json:"tokenizer"`
	Train      Train      `json:"train"`
	Selection  Selection  `json:"selection"`
	Examples   []Example  `json:"examples,omitempty"` // labelled quick checks after the last epoch; a miss stops the run before the model is logged
	Signature  Signature  `json:"signature"`
	Tracking   Tracking   `json:"tracking"`
	LoadTest   LoadTest   `json:"load_test"`
	Checkpoint Checkpoint `json:"checkpoint"`
	Limits     Limits     `json:"limits"`
	ResumeFrom ResumeFrom `json:"resume_from"`
}

// Data says where the rows come from and how they are split.
type Data struct {
	Source       string   `json:"source"`              // hf://owner/name[@revision][?config=…&split=…], s3://bucket/key, s3://bucket/prefix/ (all files below it in the order of their names, but for names that begin with . or _), s3://bucket/prefix/*.csv (* within a name, ** for any folders), file:///absolute/path or file:path (a file, a folder or a pattern below a data root of the worker); required
	Format       string   `json:"format"`              // auto (by the file's name, then its content), tsv (label<TAB>text), csv, jsonl, parquet, arrow (file or stream), or folder (each file is a text, the folder it is in its label); gzip and zstd are told by content
	Text         string   `json:"text"`                // column of the text
	TextPair     string   `json:"text_pair,omitempty"` // column of a second text, for rows that are pairs of texts: the model sees both as one input, and of the longer one the end is cut first; left out: rows are of one text
	Label        string   `json:"label"`               // column of the label
	Labels       []string `json:"labels"`              // class names in index order, at least two; an integer label is an index into them; those that a data set on a hub states must be equal; left out, they are those, or else the labels found, sorted, which takes another pass over the data
	TestFraction float64  `json:"test_fraction"`       // share of rows held out, more than 0 and less than 1
	Validation   float64  `json:"validation_fraction"` // share of rows kept apart from both, [0, 1): each epoch is evaluated on it, and the test rows only once, at the end; 0: each epoch is evaluated on the test rows
	SplitSeed    int64    `json:"split_seed"`          // decides which rows are held out
	ShuffleSeed  int64    `json:"shuffle_seed"`        // decides the stored order of the rows
	CSV          CSV      `json:"csv"`
	Split        Split    `json:"split"`
	Rows         Rows     `json:"rows"`
}

// CSV says how files of the format csv are written.
type CSV struct {
	Delimiter string `json:"delimiter"` // between fields: one character of ASCII, such as , ; | or a tab
	Quote     string `json:"quote"`     // around fields that hold delimiters or line breaks, doubled within them: one character of ASCII, or empty where quotes mean nothing
	Header    bool   `json:"header"`    // the first line names the columns; else they are called 0, 1, 2 and so on
}

// Split says which rows are held out, where a share of all rows at random is not what is wanted. At most one of stratify, group, column and test_source is set.
type Split struct {
	Stratify   bool   `json:"stratify"`    // hold out the same share of each class; the number of rows held out stays exact
	Group      string `json:"group"`       // column: rows with the same value are all held out or all not, and at most test_fraction of all rows are
	Column     string `json:"column"`      // column that says which rows are held out: test, validation and train (or true and false, 1 and 0); test_fraction means nothing then, and validation_fraction only where the column names no validation rows
	TestSource string `json:"test_source"` // where the rows to hold out are, as source: all rows of source are for training then, and test_fraction means nothing
	Dedupe     string `json:"dedupe"`      // rows with the same text are one row, before the split and across its sides: none, exact, or normalised (Unicode form, case and white space make no difference); of several, one that is held out is kept
}

// Rows says which rows can be used, and what happens to the others.
type Rows struct {
	OnError      string  `json:"on_error"`       // a row without text or label, with an unknown label or bytes that are no text: fail (the first one ends the run), skip, or quarantine (skip, and keep it in the store as a line of JSON with file, row, column and reason)
	MaxErrors    float64 `json:"max_errors"`     // share of all rows, [0, 1), that skip and quarantine may leave out; more end the run
	Encoding     string  `json:"encoding"`       // of tsv, csv and jsonl files, by its name on the web: utf-8, latin1, windows-1252, utf-16, shift_jis and so on
	InvalidBytes string  `json:"invalid_bytes"`  // bytes that are not of the encoding: error (the row cannot be used) or replace (by U+FFFD)
	MaxBytes     int     `json:"max_bytes"`      // of a row; a longer one cannot be used
	MinClassRows int     `json:"min_class_rows"` // training rows that each class must have
}

// Model names the base model.
type Model struct {
	Base     string `json:"base"`     // hf://owner/name[@revision], s3://bucket/prefix, models:/name@alias, models:/name/version or models:/m-… (logged to MLflow by mlflow.transformers, in Python or here), file:///absolute/folder or file:folder (below a data root); required
	Revision string `json:"revision"` // hub revision; the run records the commit it stood for
}

// Tokenizer says how text becomes tokens.
type Tokenizer struct {
	MaxLength int    `json:"max_length"` // tokens a row at most, special tokens included, 2 to 512
	Padding   string `json:"padding"`    // max_length (every batch that wide) or longest (only as wide as its longest row)
}

// Train is the training loop, by the names of Hugging Face's TrainingArguments.
type Train struct {
	Epochs                    int     `json:"epochs"`                      // passes over the training rows, 1 to 10,000
	BatchSize                 int     `json:"batch_size"`                  // rows a forward pass; times gradient_accumulation_steps, rows a step
	EvalBatchSize             int     `json:"eval_batch_size"`             // rows a forward pass in evaluation
	GradientAccumulationSteps int     `json:"gradient_accumulation_steps"` // batches a step; loss and gradients are means over all rows of the step
	LearningRate              float64 `json:"learning_rate"`               // peak, more than 0 and at most 1
	Schedule                  string  `json:"schedule"`                    // of the learning rate after warm-up: linear or cosine (both to 0), or constant
	WarmupSteps               int     `json:"warmup_steps"`                // steps over which the learning rate rises from 0
	WarmupRatio               float64 `json:"warmup_ratio"`                // the same as a share of all steps, [0, 1); used where warmup_steps is 0
	WeightDecay               float64 `json:"weight_decay"`                // of AdamW, [0, 1]; not on biases and layer norms
	AdamBeta1                 float64 `json:"adam_beta1"`                  // [0, 1)
	AdamBeta2                 float64 `json:"adam_beta2"`                  // [0, 1)
	AdamEpsilon               float64 `json:"adam_epsilon"`                // more than 0
	MaxGradNorm               float64 `json:"max_grad_norm"`               // gradients are clipped to this L2 norm; 0 switches clipping off
	LabelSmoothing            float64 `json:"label_smoothing"`             // [0, 1)
	LoggingSteps              int     `json:"logging_steps"`               // steps a point in MLflow; loss is averaged over them
	Precision                 string  `json:"precision"`                   // auto (as the device can), fp32, tf32 or bf16; the run records what it was
	Seed                      int64   `json:"seed"`                        // of the order of rows, dropout and the new head
}

// Selection says which epoch's checkpoint becomes the model, and when training ends early.
type Selection struct {
	Metric   string `json:"metric"`   // the epoch that is best by it becomes the model: eval_loss, eval_accuracy, eval_f1, eval_precision or eval_recall; empty: the last epoch; needs data.validation_fraction
	Mode     string `json:"mode"`     // what is better: min or max; left out: min of eval_loss, max of the others
	Patience int    `json:"patience"` // epochs without a better value after which training ends; 0: it goes on to the last; needs metric
}

// Example is a text and the label that the fine-tuned model must give it.
type Example struct {
	Text     string `json:"text"`                // not empty; required
	TextPair string `json:"text_pair,omitempty"` // the second text, where data.text_pair is set
	Label    string `json:"label"`               // one of data.labels; required
}

// Signature is what MLflow's infer_signature and input_example are given.
type Signature struct {
	Inputs       []Text      `json:"inputs"`        // texts to run for the outputs; where data.text_pair is set, objects with text and text_pair
	InputExample []Text      `json:"input_example"` // stored with the model, likewise; inputs, if left out
	ModelConfig  ModelConfig `json:"model_config"`
}

// ModelConfig becomes the pyfunc flavor's config and the signature's params.
type ModelConfig struct {
	BatchSize int `json:"batch_size"` // texts the pipeline runs at a time
}

// Tracking names what MLflow is told.
type Tracking struct {
	ModelName       string  `json:"model_name"`       // LoggedModel of the run; without / : . % and quotes
	RegisteredModel string  `json:"registered_model"` // gets a new version once the load test has passed; empty: nothing is registered
	Alias           string  `json:"alias"`            // moved to that version; letters, digits, '_' and '-'; needs registered_model
	PromoteIf       string  `json:"promote_if"`       // when the alias moves: passed (the load test), or better: it must also beat the version that holds the alias, on the same test rows; needs alias
	Margin          float64 `json:"margin"`           // by how much more accuracy, [0, 1), where promote_if is better; 0: any
	MaxP            float64 `json:"max_p"`            // and at which p-value of McNemar's exact test at most, more than 0 and at most 1; 1: any
}

// LoadTest is the gate before a version is registered.
type LoadTest struct {
	RatePerSecond float64  `json:"rate_per_second"` // requests a second, sent whether or not earlier ones are answered; at most 10,000
	Duration      Duration `json:"duration"`        // of the measured part, 1s to 1h
	MaxP50        Duration `json:"max_p50"`         // limit of the median latency; 0s: none
	MaxP95        Duration `json:"max_p95"`         // limit of the 95th percentile latency; 0s: none
	MaxP99        Duration `json:"max_p99"`         // limit of the 99th percentile latency
	MaxErrorRate  float64  `json:"max_error_rate"`  // share of requests that may fail, [0, 1]
	MinThroughput float64  `json:"min_throughput"`  // answers a second, at least, and at most rate_per_second; 0: no limit
}

// Checkpoint says how often a checkpoint is written within an epoch.
type Checkpoint struct {
	EverySteps int      `json:"every_steps"` // 0: no matter how many
	Every      Duration `json:"every"`       // time between checkpoints within an epoch; 0s: no matter how long; with every_steps 0, too: at the end of each epoch only
	Keep       int      `json:"keep"`        // latest epochs whose checkpoint is kept, besides the best one, at least 1
}

// ResumeFrom starts where an epoch of another run ended, which must have had the same data, model, tokenizer, seed and rows a
// step; epochs, learning rate and the rest may differ.
type ResumeFrom struct {
	Run   string `json:"run"`   // id of its MLflow run; empty: start with the base model
	Epoch int    `json:"epoch"` // that run's last epoch to be reused, less than train.epochs; its checkpoint must have been kept
}

// Limits bound the run.
type Limits struct {
	MaxWallTime Duration `json:"max_wall_time"` // from start to end, retries included
	MaxStepTime Duration `json:"max_step_time"` // the longest that one step of the training or one evaluation batch may take on a worker that works, at least 1m: a worker silent for longer is given up, and one silent for twice as long ends itself
}
