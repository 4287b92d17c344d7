package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// Tags that say what a run was made by and from.
const (
	tagVersion      = "duratune.version" // of the worker that planned the run
	tagLibtorch     = "duratune.libtorch"
	tagDevice       = "duratune.device"
	tagInstructions = "duratune.instruction_set"
	tagThreads      = "duratune.threads"
	tagPrecision    = "duratune.precision"
	tagLineage      = "duratune.lineage"
	tagRecipe       = "duratune.recipe_digest"
	tagData         = "duratune.data_digest" // of the training rows
	tagBaseCommit   = "duratune.base_commit"
	tagDrawn        = "duratune.weights_drawn"   // names of the head's weights that the base model lacks
	tagDropped      = "duratune.weights_dropped" // names of its tensors that a classifier does not have
)

// identityTags say on what the numbers of a run depend besides recipe and data.
func identityTags(id train.Identity, lineage int) map[string]string {
	return map[string]string{tagDevice: id.Device, tagInstructions: id.InstructionSet, tagThreads: strconv.Itoa(id.Threads),
		tagLibtorch: id.Libtorch, tagPrecision: id.Precision, tagLineage: strconv.Itoa(lineage)}
}

// buildVersion names this build: the module's version, and the commit where the build recorded one.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && !strings.Contains(version, s.Value[:min(12, len(s.Value))]):
			version += " " + s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			version += " modified"
		}
	}
	return version
}

// maxConfigParams bounds how many fields of a config.json become params; models of the hub have about 40.
const maxConfigParams = 200

// logModelConfig logs the base model's config as Trainer's callback does: each field a param, under its own name. What
// the server refuses is left out, since the params are there to be looked at; an outage is an error. The tags go with them.
func (c *CPU) logModelConfig(ctx context.Context, in FetchModelInput, dir string, tags map[string]string) error {
	body, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return &modelError{in.Model.Base, "config.json cannot be read: " + err.Error()}
	}
	values, err := configParams(body, in)
	if err != nil {
		return &modelError{in.Model.Base, "config.json: " + err.Error()}
	}
	batch := mlflow.Batch{Params: values, Tags: tags}
	err = c.Tracking.LogBatch(ctx, in.Run.MLflowRunID, batch)
	if errors.Is(err, mlflow.ErrRejected) {
		c.Logger.Warn("the base model's config was not logged", "error", err)
		return nil
	}
	return err
}

// baseTags say what the base model's name stood for, and what of its weights was not taken as it was.
func baseTags(commit string, loaded model.Loaded) map[string]string {
	tags := map[string]string{
		tagBaseCommit: commit, tagDrawn: strings.Join(loaded.Drawn, ", "), tagDropped: strings.Join(loaded.Dropped, ", "),
	}
	maps.DeleteFunc(tags, func(_, value string) bool { return value == "" })
	return tags
}

// configParams are the fields of config.json, printed as Python prints them. The recipe's own params win over fields of
// the same name, as TrainingArguments do.
func configParams(body []byte, in FetchModelInput) (map[string]string, error) {
	config := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if err := dec.Decode(&config); err != nil {
		return nil, err
	}
	labels := map[string]any{}
	for i, label := range in.Labels {
		labels[label] = json.Number(strconv.Itoa(i))
	}
	config["label2id"], config["_name_or_path"] = labels, baseName(in.Model.Base)
	delete(config, "transformers_version") // of whoever wrote the file
	taken := params(recipe.Recipe{})
	taken["batch_size"] = "" // logged with the model
	taken[paramLabels] = ""  // logged once the classes are known
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(config)) {
		key := mlflow.CleanName(name)
		if _, ok := taken[key]; ok || len(out) == maxConfigParams {
			continue
		}
		if _, ok := out[key]; !ok {
			out[key] = pythonText(config[name])
		}
	}
	return out, nil
}

// pythonText prints a decoded JSON value as Python's str does.
func pythonText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return pythonRepr(v)
}

// pythonRepr prints a decoded JSON value as Python's repr does, the keys of a dict sorted.
func pythonRepr(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return map[bool]string{true: "True", false: "False"}[v]
	case json.Number:
		if f, err := v.Float64(); err == nil && strings.ContainsAny(v.String(), ".eE") {
			return pythonFloat(f)
		}
		return v.String()
	case string:
		return pythonQuote(v)
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = pythonRepr(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, pythonQuote(k)+": "+pythonRepr(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v)
}

// pythonQuote quotes with single quotes, or with double ones where the text has only single ones.
func pythonQuote(s string) string {
	quote := "'"
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = `"`
	}
	return quote + strings.NewReplacer(`\`, `\\`, quote, `\`+quote, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + quote
}

// pythonFloat prints a float as Python does: the shortest digits, with a point or an exponent.
func pythonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(f, 'g', -1, 64)), "+")
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		format = 'e'
	}
	s := strconv.FormatFloat(f, format, -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}
