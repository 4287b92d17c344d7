package recipe

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/encoding/htmlindex"
)

// Validate checks every rule and returns all that are broken as [Problems], or nil. [Decode] has called it.
func (r Recipe) Validate() error { return r.rules().err() }

var (
	namePattern  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
	aliasPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)
	runPattern   = regexp.MustCompile(`^[0-9a-f]{32}$`)
	// versionPattern is what MLflow keeps for itself.
	versionPattern = regexp.MustCompile(`^(latest|[vV][0-9]+)$`)
)

func (r Recipe) rules() Problems {
	var p Problems
	p.check(namePattern.MatchString(r.Name), "name", r.Name, "1 to 100 letters, digits, '.', '_' and '-'")
	p.check(isText(r.Experiment, 250), "experiment", r.Experiment, "1 to 250 printable characters")
	r.Data.rules(&p)
	p.location("model.base", r.Model.Base, "folder")
	p.check(isText(r.Model.Revision, 250) && !strings.ContainsAny(r.Model.Revision, " ?#%"), "model.revision", r.Model.Revision, "a branch, tag or commit")
	p.between("tokenizer.max_length", r.Tokenizer.MaxLength, 2, 512)
	p.oneOf("tokenizer.padding", r.Tokenizer.Padding, "max_length", "longest")
	r.Train.rules(&p)
	r.Selection.rules(&p)
	r.Signature.rules(&p)
	r.Tracking.rules(&p)
	r.LoadTest.rules(&p)
	p.check(r.Checkpoint.EverySteps >= 0, "checkpoint.every_steps", r.Checkpoint.EverySteps, ">= 0")
	p.check(r.Checkpoint.Every >= 0, "checkpoint.every", r.Checkpoint.Every, "0s or more")
	p.check(r.Checkpoint.Keep >= 1, "checkpoint.keep", r.Checkpoint.Keep, ">= 1")
	p.check(r.Limits.MaxWallTime > 0, "limits.max_wall_time", r.Limits.MaxWallTime, "> 0")
	p.check(r.Limits.MaxStepTime >= Duration(time.Minute), "limits.max_step_time", r.Limits.MaxStepTime, "at least 1m")
	r.ResumeFrom.rules(&p, r.Train.Epochs)
	r.crossRules(&p)
	return p
}

func (d Data) rules(p *Problems) {
	p.location("data.source", d.Source, "file")
	p.oneOf("data.format", d.Format, "auto", "tsv", "csv", "jsonl", "parquet", "arrow", "folder")
	p.check(d.Text != "", "data.text", d.Text, "a column")
	p.check(d.Label != "" && d.Label != d.Text, "data.label", d.Label, "a column other than data.text")
	if d.TextPair != "" {
		p.check(d.TextPair != d.Text && d.TextPair != d.Label, "data.text_pair", d.TextPair, "a column other than data.text and data.label")
		p.check(d.Format != "tsv" && d.Format != "folder", "data.text_pair", d.Format, "a format with columns, for text_pair")
	}
	p.check(len(d.Labels) == 0 || len(d.Labels) >= 2 && len(d.Labels) <= 1000, "data.labels", d.Labels, "none, or 2 to 1,000 class names")
	for i, label := range d.Labels {
		path := fmt.Sprintf("data.labels[%d]", i)
		p.check(isText(label, 250), path, label, "1 to 250 printable characters")
		p.check(!slices.Contains(d.Labels[:i], label), path, label, "each label once")
	}
	p.check(d.TestFraction > 0 && d.TestFraction < 1, "data.test_fraction", d.TestFraction, "more than 0 and less than 1")
	p.share("data.validation_fraction", d.Validation)
	if !p.has("data.test_fraction") && !p.has("data.validation_fraction") {
		p.check(d.TestFraction+d.Validation < 1, "data.validation_fraction", d.Validation, "less than 1 together with data.test_fraction")
	}
	d.CSV.rules(p)
	d.Split.rules(p, d.Format)
	d.Rows.rules(p)
}

func (f ResumeFrom) rules(p *Problems, epochs int) {
	if f.Run == "" {
		p.check(f.Epoch == 0, "resume_from.epoch", f.Epoch, "0, since resume_from.run is empty")
		return
	}
	p.check(runPattern.MatchString(f.Run), "resume_from.run", f.Run, "an MLflow run id of 32 hexadecimal digits")
	if !p.has("train.epochs") && !p.has("resume_from.run") {
		p.check(f.Epoch >= 1 && f.Epoch < epochs, "resume_from.epoch", f.Epoch, "at least 1 and less than train.epochs")
	}
}

func (c CSV) rules(p *Problems) {
	ascii := func(s string) bool { return len(s) == 1 && s[0] != '\n' && s[0] != '\r' && s[0] < 0x80 }
	p.check(ascii(c.Delimiter), "data.csv.delimiter", c.Delimiter, "one character of ASCII, no line break")
	p.check(c.Quote == "" || ascii(c.Quote) && c.Quote != c.Delimiter, "data.csv.quote", c.Quote, "none or one character of ASCII, another than the delimiter")
}

func (s Split) rules(p *Problems, format string) {
	set := 0
	for _, on := range []bool{s.Stratify, s.Group != "", s.Column != "", s.TestSource != ""} {
		if on {
			set++
		}
	}
	p.check(set <= 1, "data.split", set, "at most one of stratify, group, column and test_source")
	p.check(format != "tsv" && format != "folder" || s.Group == "" && s.Column == "", "data.split", format, "a format with columns, for group or column")
	if s.TestSource != "" {
		p.location("data.split.test_source", s.TestSource, "file")
	}
	p.oneOf("data.split.dedupe", s.Dedupe, "none", "exact", "normalised")
}

func (r Rows) rules(p *Problems) {
	p.oneOf("data.rows.on_error", r.OnError, "fail", "skip", "quarantine")
	p.share("data.rows.max_errors", r.MaxErrors)
	_, err := htmlindex.Get(r.Encoding)
	p.check(err == nil, "data.rows.encoding", r.Encoding, "the name of an encoding, such as utf-8 or latin1")
	p.oneOf("data.rows.invalid_bytes", r.InvalidBytes, "error", "replace")
	p.between("data.rows.max_bytes", r.MaxBytes, 1, 256<<20)
	p.check(r.MinClassRows >= 0, "data.rows.min_class_rows", r.MinClassRows, ">= 0")
}

func (t Train) rules(p *Problems) {
	p.between("train.epochs", t.Epochs, 1, 10_000)
	p.between("train.batch_size", t.BatchSize, 1, 65_536)
	p.between("train.eval_batch_size", t.EvalBatchSize, 1, 65_536)
	p.between("train.gradient_accumulation_steps", t.GradientAccumulationSteps, 1, 65_536)
	p.check(t.LearningRate > 0 && t.LearningRate <= 1, "train.learning_rate", t.LearningRate, "> 0 and <= 1")
	p.oneOf("train.schedule", t.Schedule, "linear", "cosine", "constant")
	p.check(t.WarmupSteps >= 0, "train.warmup_steps", t.WarmupSteps, ">= 0")
	p.share("train.warmup_ratio", t.WarmupRatio)
	p.check(t.WeightDecay >= 0 && t.WeightDecay <= 1, "train.weight_decay", t.WeightDecay, "0 to 1")
	p.share("train.adam_beta1", t.AdamBeta1)
	p.share("train.adam_beta2", t.AdamBeta2)
	p.check(t.AdamEpsilon > 0 && t.AdamEpsilon <= 1, "train.adam_epsilon", t.AdamEpsilon, "> 0 and <= 1")
	p.check(t.MaxGradNorm >= 0, "train.max_grad_norm", t.MaxGradNorm, ">= 0; 0 switches clipping off")
	p.share("train.label_smoothing", t.LabelSmoothing)
	p.check(t.LoggingSteps >= 1, "train.logging_steps", t.LoggingSteps, ">= 1")
	p.oneOf("train.precision", t.Precision, "auto", "fp32", "tf32", "bf16")
}

func (s Selection) rules(p *Problems) {
	if s.Metric != "" {
		p.oneOf("selection.metric", s.Metric, "eval_loss", "eval_accuracy", "eval_f1", "eval_precision", "eval_recall")
		p.oneOf("selection.mode", s.Mode, "min", "max")
	}
	p.check(s.Patience >= 0, "selection.patience", s.Patience, ">= 0; 0 never ends early")
	p.check(s.Patience <= 0 || s.Metric != "", "selection.metric", s.Metric, "a metric, since selection.patience is set")
}

func (s Signature) rules(p *Problems) {
	p.texts("signature.inputs", s.Inputs)
	if len(s.Inputs) > 0 || s.InputExample != nil { // else there is nothing to take its default from
		p.texts("signature.input_example", s.InputExample)
	}
	p.between("signature.model_config.batch_size", s.ModelConfig.BatchSize, 1, 65_536)
}

func (t Tracking) rules(p *Problems) {
	p.check(isText(t.ModelName, 250) && !strings.ContainsAny(t.ModelName, `/:.%"'`), "tracking.model_name", t.ModelName, `1 to 250 printable characters without / : . % " '`)
	if t.RegisteredModel != "" {
		p.check(isText(t.RegisteredModel, 250) && !strings.ContainsAny(t.RegisteredModel, "/:\"'`"), "tracking.registered_model", t.RegisteredModel, "at most 250 printable characters without / : and quotes")
	}
	if t.Alias != "" {
		p.check(aliasPattern.MatchString(t.Alias) && !versionPattern.MatchString(t.Alias), "tracking.alias", t.Alias, "letters, digits, '_' and '-', but not latest or v1")
	}
	p.oneOf("tracking.promote_if", t.PromoteIf, "passed", "better")
	p.share("tracking.margin", t.Margin)
	p.check(t.MaxP > 0 && t.MaxP <= 1, "tracking.max_p", t.MaxP, "> 0 and <= 1")
}

func (l LoadTest) rules(p *Problems) {
	p.check(l.RatePerSecond > 0 && l.RatePerSecond <= 10_000, "load_test.rate_per_second", l.RatePerSecond, "> 0 and <= 10000")
	p.check(l.Duration >= Duration(time.Second) && l.Duration <= Duration(time.Hour), "load_test.duration", l.Duration, "1s to 1h")
	p.check(l.MaxP50 >= 0, "load_test.max_p50", l.MaxP50, ">= 0; 0s is no limit")
	p.check(l.MaxP95 >= 0, "load_test.max_p95", l.MaxP95, ">= 0; 0s is no limit")
	p.check(l.MaxP99 > 0, "load_test.max_p99", l.MaxP99, "> 0")
	p.check(l.MaxErrorRate >= 0 && l.MaxErrorRate <= 1, "load_test.max_error_rate", l.MaxErrorRate, "0 to 1")
	p.check(l.MinThroughput >= 0 && (l.MinThroughput <= l.RatePerSecond || l.RatePerSecond <= 0), "load_test.min_throughput", l.MinThroughput, "0 to load_test.rate_per_second")
}

// crossRules are those between sections.
func (r Recipe) crossRules(p *Problems) {
	for i, e := range r.Examples {
		p.check(e.Text != "", fmt.Sprintf("examples[%d].text", i), e.Text, "a text")
		p.check(e.Label != "" && (len(r.Data.Labels) == 0 || slices.Contains(r.Data.Labels, e.Label)), fmt.Sprintf("examples[%d].label", i), e.Label, "one of data.labels")
		p.paired(fmt.Sprintf("examples[%d].text_pair", i), e.TextPair, r.Data.TextPair != "")
	}
	for i, text := range r.Signature.Inputs {
		p.paired(fmt.Sprintf("signature.inputs[%d].text_pair", i), text.Pair, r.Data.TextPair != "")
	}
	for i, text := range r.Signature.InputExample {
		p.paired(fmt.Sprintf("signature.input_example[%d].text_pair", i), text.Pair, r.Data.TextPair != "")
	}
	if r.Selection.Metric != "" && r.Data.Validation == 0 {
		p.add("data.validation_fraction", "0", "more than 0, since selection.metric must not be measured on the test rows")
	}
	if r.Tracking.RegisteredModel == "" && r.Tracking.Alias != "" {
		p.add("tracking.registered_model", `""`, "a name, since tracking.alias is set")
	}
	if r.Tracking.PromoteIf == "better" && r.Tracking.Alias == "" {
		p.add("tracking.alias", `""`, "a name, since tracking.promote_if is better than its holder")
	}
	requests := r.LoadTest.RatePerSecond * time.Duration(r.LoadTest.Duration).Seconds()
	if !p.has("load_test.rate_per_second") && !p.has("load_test.duration") {
		p.check(requests >= 1, "load_test.duration", r.LoadTest.Duration, "long enough for a request at load_test.rate_per_second")
	}
}

func (p *Problems) between(path string, got, low, high int) {
	p.check(got >= low && got <= high, path, got, fmt.Sprintf("%d to %d", low, high))
}

// share is a number in [0, 1).
func (p *Problems) share(path string, got float64) {
	p.check(got >= 0 && got < 1, path, got, ">= 0 and < 1")
}

func (p *Problems) oneOf(path, got string, want ...string) {
	p.check(slices.Contains(want, got), path, got, strings.Join(want[:len(want)-1], ", ")+" or "+want[len(want)-1])
}

func (p *Problems) texts(path string, got []Text) {
	p.check(len(got) >= 1 && len(got) <= 100, path, got, "1 to 100 texts")
	for i, text := range got {
		p.check(text.Text != "", fmt.Sprintf("%s[%d]", path, i), text.Text, "a text")
	}
}

// paired checks that a text is a pair where the rows are, and only there.
func (p *Problems) paired(path string, got string, pairs bool) {
	if pairs {
		p.check(got != "", path, got, "a second text, since data.text_pair is set")
	} else {
		p.check(got == "", path, got, "no second text, since data.text_pair is not set")
	}
}

// isText reports that s is of 1 to limit printable characters, not all of them spaces.
func isText(s string, limit int) bool {
	return strings.TrimSpace(s) != "" && len([]rune(s)) <= limit && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
