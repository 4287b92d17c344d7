package activities

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.temporal.io/sdk/activity"
	yaml "go.yaml.in/yaml/v3"

	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// workflowURL links to the workflow in Temporal's Web UI; "" where the UI's address is not known.
func (c *CPU) workflowURL(ctx context.Context, run Run) string {
	if c.UI == "" {
		return ""
	}
	info := activity.GetInfo(ctx)
	return fmt.Sprintf("%s/namespaces/%s/workflows/%s/%s", c.UI, info.Namespace, info.WorkflowExecution.ID, run.WorkflowRunID)
}

// modelID is the id in a models:/m-… URI.
func modelID(uri string) string { return strings.TrimPrefix(uri, "models:/") }

// describe writes the run's description and the tags that say what it was made by and from.
func (r *report) describe(ctx context.Context) error {
	digest, err := r.in.Recipe.Digest()
	if err != nil {
		return err
	}
	tags := identityTags(r.checkpoint.Identity, r.checkpoint.Lineage)
	tags[tagRecipe], tags[tagData] = digest, r.in.Split.Train.Digest
	tags[mlflow.TagNote] = r.note(r.workflowURL(ctx, r.in.Run))
	return r.Tracking.SetTags(ctx, r.run.ID, tags)
}

// note is the run's description in Markdown.
func (r *report) note(workflowURL string) string {
	var b strings.Builder
	in := r.in
	fmt.Fprintf(&b, "Fine-tunes %s on %s: %d training rows, %d test rows, labels %s.\n\n", mlflow.Code(baseName(in.Recipe.Model.Base)),
		mlflow.Code(in.Recipe.Data.Source), in.Split.Train.NumRows, in.Split.Test.NumRows, mlflow.Escape(few(in.Recipe.Data.Labels)))
	b.WriteString("| epoch | train loss | eval loss | accuracy | F1 | seconds |\n|---:|---:|---:|---:|---:|---:|\n")
	for _, e := range in.Epochs {
		fmt.Fprintf(&b, "| %d | %.4f | %.4f | %.4f | %.4f | %.1f |\n", e.Epoch, e.TrainLoss, e.EvalLoss, e.Accuracy, e.F1, e.Seconds)
	}
	if n := len(in.Epochs); n > 0 && in.Epochs[0].Epoch > 1 {
		fmt.Fprintf(&b, "\nThe latest %d of %d epochs.\n", n, in.Epochs[n-1].Epoch)
	}
	if in.Choice.Sealed {
		m := r.held.metrics
		fmt.Fprintf(&b, "\nThe table is of the %d validation rows. **Test figures**: loss %.4f, accuracy %.4f, F1 %.4f.\n", in.Split.Validation.NumRows, m.Loss, m.Accuracy, m.F1)
	}
	logged := "No model was logged."
	if in.ModelURI != "" {
		logged = "Logged as " + mlflow.Code(in.ModelURI) + "."
	}
	fmt.Fprintf(&b, "\n**Test set**: %s %s %s\n", mlflow.Escape(in.Choice.String()), logged, overlap(in.Split))
	if in.LoadTest != nil {
		fmt.Fprintf(&b, "\n**Load test**: %s\n", mlflow.Escape(verdict(*in.LoadTest, in.Recipe.LoadTest.RatePerSecond)))
	}
	id := r.checkpoint.Identity
	fmt.Fprintf(&b, "\n**Made by**: duratune %s on %s (%s), %s, libtorch %s.", mlflow.Escape(buildVersion()), mlflow.Escape(id.Device),
		mlflow.Escape(id.InstructionSet), mlflow.Escape(id.Precision), mlflow.Escape(id.Libtorch))
	if n := r.checkpoint.Lineage; n > 0 {
		fmt.Fprintf(&b, " It went on under another device or library %d times, so its bits are of no single one.", n)
	}
	if workflowURL != "" {
		fmt.Fprintf(&b, "\n\n[Temporal workflow](%s)", workflowURL)
	}
	return b.String() + "\n"
}

// verdict is the load test in a sentence.
func verdict(l LoadTestResult, rate float64) string {
	if l.Requests == 0 {
		return "refused before any traffic: " + strings.Join(l.Reasons, "; ") + "."
	}
	s := fmt.Sprintf("%d requests at %g a second, %d failed; p50 %.1f ms, p95 %.1f ms, p99 %.1f ms; %.1f answers a second.", l.Requests, rate, l.Errors, l.P50, l.P95, l.P99, l.Throughput)
	if l.Passed {
		return "passed. " + s
	}
	return "refused (" + strings.Join(l.Reasons, "; ") + "). " + s
}

// overlap says how independent the test rows are.
func overlap(split LoadSplitResult) string {
	s := "No test row's text stands in the training rows."
	if split.Overlap > 0 {
		s = fmt.Sprintf("The texts of %d test rows also stand in the training rows.", split.Overlap)
	}
	if split.ValidationOverlap > 0 {
		s += fmt.Sprintf(" So do the texts of %d validation rows.", split.ValidationOverlap)
	}
	return s
}

// few lists labels, the first of many.
func few(labels []string) string {
	const most = 12
	if len(labels) > most {
		return strings.Join(labels[:most], ", ") + fmt.Sprintf(" and %d more", len(labels)-most)
	}
	return strings.Join(labels, ", ")
}

// fewRows is below which a class's figures say little.
const fewRows = 30

// modelCard says what a reader must know before using the model.
func (c *CPU) modelCard(ctx context.Context, in LogModelInput, checkpoint train.Checkpoint, terms licence) (mlflow.Card, error) {
	held, err := c.heldOut(ctx, in.Split.Test, in.Predictions, in.Recipe.Data.Labels)
	if err != nil {
		return mlflow.Card{}, err
	}
	base, err := getManifest[Folder](ctx, c.Store, in.Model)
	if err != nil {
		return mlflow.Card{}, err
	}
	digest, err := in.Recipe.Digest()
	if err != nil {
		return mlflow.Card{}, err
	}
	r, m, id := in.Recipe, held.metrics, checkpoint.Identity
	average := "macro average"
	if len(held.Classes) == 2 {
		average = held.Classes[1]
	}
	card := mlflow.Card{
		Name: r.Name, Task: fmt.Sprintf("Sorts %s into %d classes: %s.", inputs(r.Data), len(held.Classes), few(held.Classes)),
		BaseModel: at(baseName(r.Model.Base), base.Commit), BaseLicense: terms.name, Classes: held.classes(),
		Results: []mlflow.Fact{{Name: "loss", Value: figure(m.Loss)}, {Name: "accuracy", Value: figure(m.Accuracy)}, {Name: "F1, " + average, Value: figure(m.F1)},
			{Name: "precision, " + average, Value: figure(m.Precision)}, {Name: "recall, " + average, Value: figure(m.Recall)}},
		Trace: []mlflow.Fact{{Name: "MLflow run", Value: in.Run.MLflowRunID}, {Name: "Temporal workflow", Value: activity.GetInfo(ctx).WorkflowExecution.ID},
			{Name: "Temporal run", Value: in.Run.WorkflowRunID}, {Name: "recipe digest", Value: digest}, {Name: "step", Value: strconv.FormatInt(checkpoint.State.Step, 10)},
			{Name: "weights digest", Value: checkpoint.Weights.SHA256}, {Name: "duratune", Value: buildVersion()}, {Name: "libtorch", Value: id.Libtorch},
			{Name: "device", Value: id.Device + " (" + id.InstructionSet + ")"}, {Name: "precision", Value: id.Precision}, {Name: "lineage", Value: strconv.Itoa(checkpoint.Lineage)}},
	}
	for _, share := range []Share{in.Split.Train, in.Split.Test} {
		data := mlflow.CardData{Share: share.Name, Source: at(r.Data.Source, in.Split.Commit), Digest: share.Digest, Rows: share.NumRows}
		for i, n := range share.LabelCounts {
			data.Labels = append(data.Labels, mlflow.Fact{Name: r.Data.Labels[i], Value: strconv.Itoa(n)})
		}
		card.Data = append(card.Data, data)
	}
	settings := params(r)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		card.Settings = append(card.Settings, mlflow.Fact{Name: name, Value: settings[name]})
	}
	card.Limits = limits(in, held)
	return card, nil
}

// inputs says what is classified.
func inputs(d recipe.Data) string {
	if d.TextPair != "" {
		return "pairs of texts"
	}
	return "texts"
}

// limits are what the figures do not show.
func limits(in LogModelInput, held heldOut) []string {
	cut := "A text of more than %d tokens is cut: what follows does not count."
	if in.Recipe.Data.TextPair != "" {
		cut = "A pair of more than %d tokens is cut at the ends of its texts, the longer one first: what follows does not count."
	}
	out := []string{
		fmt.Sprintf(cut, in.Recipe.Tokenizer.MaxLength),
		"The figures are of held-out rows of the same source; texts of another origin, language or time may fare worse.",
		in.Choice.String(),
		overlap(in.Split),
		"Scores are softmax probabilities and were not calibrated.",
		"The licence of the data was not looked up: see its source.",
	}
	for _, class := range held.classes() {
		if class.Rows < fewRows {
			out = append(out, fmt.Sprintf("Only %d test rows are %s: its figures say little.", class.Rows, class.Label))
		}
	}
	return out
}

func figure(v float64) string { return strconv.FormatFloat(v, 'f', 4, 64) }

// at names a commit of something, where one is known.
func at(name, commit string) string {
	if commit == "" {
		return name
	}
	return name + "@" + commit
}

// licence is what a base model's folder says of its terms.
type licence struct {
	name string // "" where it says nothing
	text string // of its LICENSE file
}

// maxLicence bounds what is read of README.md and LICENSE.
const maxLicence = 1 << 20

// readLicence reads the name in the front matter of README.md, else the first line of the LICENSE file, and that file's
// text. What is not there, or not as expected, is not known.
func readLicence(dir string) (l licence, err error) {
	for _, name := range termsFiles[1:] {
		text, err := readBounded(filepath.Join(dir, name))
		if err != nil {
			return l, err
		}
		if l.text == "" {
			l.text = string(text)
		}
	}
	readme, err := readBounded(filepath.Join(dir, termsFiles[0]))
	if err != nil {
		return l, err
	}
	if l.name = frontMatterLicence(readme); l.name != "" {
		return l, nil
	}
	for lines := bufio.NewScanner(strings.NewReader(l.text)); lines.Scan(); {
		if l.name = strings.TrimSpace(lines.Text()); l.name != "" {
			break
		}
	}
	return l, nil
}

// frontMatterLicence reads `license:` of the YAML between two lines of ---.
func frontMatterLicence(readme []byte) string {
	text, ok := bytes.CutPrefix(bytes.ReplaceAll(readme, []byte("\r\n"), []byte("\n")), []byte("---\n"))
	front, _, closed := bytes.Cut(text, []byte("\n---"))
	var card struct {
		License yaml.Node `yaml:"license"`
	}
	if !ok || !closed || yaml.Unmarshal(front, &card) != nil {
		return ""
	}
	var names []string
	if card.License.Decode(&names) != nil {
		names = []string{card.License.Value}
	}
	return strings.Join(names, ", ")
}

// readBounded reads the beginning of a file; one that does not exist is empty.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxLicence))
}
