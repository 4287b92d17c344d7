package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/duratune/duratune/internal/metriclog"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/train"
)

// PromoteInput is a tested model to register.
type PromoteInput struct {
	Run             Run               `json:"run"`
	ModelID         string            `json:"model_id"`
	RegisteredModel string            `json:"registered_model"`
	Alias           string            `json:"alias,omitempty"`
	Tags            map[string]string `json:"tags,omitempty"`    // of the version
	Step            int64             `json:"step,omitempty"`    // of the model
	Contest         *Contest          `json:"contest,omitempty"` // nil: the alias moves, whoever holds it

	Comparison *Comparison `json:"comparison,omitempty"` // how the contest went
	LastTry    bool        `json:"last_try,omitempty"`   // an alias that moved during the contest is left where it is
}

// PromoteResult is where the model stands in the registry.
type PromoteResult struct {
	Version   string `json:"version"`
	Alias     string `json:"alias,omitempty"`     // "": it did not get it
	Former    string `json:"former,omitempty"`    // version that held the alias before
	Overtaken string `json:"overtaken,omitempty"` // version that took the alias since the comparison, or none
	Verdict   string `json:"verdict,omitempty"`   // in a sentence
}

// Tags of a version, and of its run.
const (
	tagFormer    = "duratune.former_champion" // version that held the alias before
	tagPromotion = "duratune.promotion"       // the verdict
)

// promotionPath is the artifact of a run that holds the input of the promotion that MLflow refused.
const promotionPath = "promotion.json"

// VersionTags say what a version was made from and how it did on the test rows.
func VersionTags(recipeDigest, dataDigest string, m train.Metrics) map[string]string {
	return map[string]string{tagRecipe: recipeDigest, tagData: dataDigest, "eval_loss": figure(m.Loss), "eval_accuracy": figure(m.Accuracy), "eval_f1": figure(m.F1)}
}

// Promote registers a tested model as a version, found by the run's key if an earlier attempt made it, and moves the
// alias to it, unless the model was compared with the alias's holder and is not better. It runs in the workflow
// promote/<model>, one at a time; whoever moves the alias by hand meanwhile is noticed, before and after the move. A
// refusal of MLflow, such as a missing permission, is a verdict and no error: the model has passed its tests, and can be
// promoted later.
func (c *CPU) Promote(ctx context.Context, in PromoteInput) (res PromoteResult, err error) {
	defer func() { err = edge(err) }()
	err = c.enter(ctx, in, &res)
	if errors.Is(err, mlflow.ErrRejected) {
		return res, c.keepForLater(ctx, in, &res, err)
	}
	if err != nil || in.Alias == "" || res.Overtaken != "" && !in.LastTry {
		return res, err
	}
	if err := c.Tracking.SetVersionTag(ctx, in.RegisteredModel, res.Version, tagPromotion, res.Verdict); err != nil {
		return res, err
	}
	return res, c.recordPromotion(ctx, in, res)
}

// enter makes the model a version of the registered model, and decides about the alias.
func (c *CPU) enter(ctx context.Context, in PromoteInput, res *PromoteResult) error {
	if err := c.Tracking.EnsureRegisteredModel(ctx, in.RegisteredModel, "", nil); err != nil {
		return err
	}
	tags := maps.Clone(in.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	tags[tagGate] = "passed"
	version, err := c.Tracking.EnsureVersion(ctx, mlflow.VersionSpec{Name: in.RegisteredModel, ModelID: in.ModelID, RunID: in.Run.MLflowRunID,
		Key: in.Run.Key + "/version", Tags: tags})
	if err != nil {
		return err
	}
	if res.Version = version.Version; in.Alias == "" {
		return nil
	}
	return c.moveAlias(ctx, in, version, res)
}

// keepForLater records that MLflow refused the promotion, and leaves its input in the run for whoever repeats it.
func (c *CPU) keepForLater(ctx context.Context, in PromoteInput, res *PromoteResult, refusal error) error {
	run, err := c.Tracking.GetRun(ctx, in.Run.MLflowRunID)
	if err != nil {
		return err
	}
	later := in
	later.Comparison, later.LastTry = nil, false // whoever holds the alias by then is compared with
	body, err := json.MarshalIndent(later, "", "  ")
	if err != nil {
		return err
	}
	if err := c.upload(ctx, run.ArtifactURI, promotionPath, body); err != nil {
		return err
	}
	refused := "register it as a version of " + in.RegisteredModel
	if res.Version != "" {
		refused = fmt.Sprintf("move the alias %s to its version %s of %s", in.Alias, res.Version, in.RegisteredModel)
	}
	res.Former = ""
	res.Verdict = fmt.Sprintf("not promoted: %s passed the gate, but MLflow refused to %s: %s. To promote it when that is settled: "+
		"mlflow artifacts download --run-id %s --artifact-path %s --dst-path . && temporal workflow start --type Promote --task-queue %s --workflow-id %s --input-file %s",
		in.ModelID, refused, redact(refusal.Error()), run.ID, promotionPath, Queue, shellQuote("promote/"+in.RegisteredModel), promotionPath)
	return c.recordPromotion(ctx, in, *res)
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// moveAlias decides who holds the alias. MLflow knows no compare-and-set: it is read, set, and read again.
func (c *CPU) moveAlias(ctx context.Context, in PromoteInput, version mlflow.Version, res *PromoteResult) error {
	holder, err := c.Tracking.GetAlias(ctx, in.RegisteredModel, in.Alias)
	if err != nil && !errors.Is(err, mlflow.ErrNotFound) {
		return err
	}
	if holder.Version == version.Version { // an earlier attempt moved it
		res.Alias, res.Former = in.Alias, version.Tags[tagFormer]
		res.Verdict = taken(in, *res)
		return nil
	}
	if in.Comparison != nil && in.Comparison.Champion != holder.Version {
		res.Overtaken = none(holder.Version)
		res.Verdict = fmt.Sprintf("refused: version %s is registered, but the alias %s moved to version %s while it was compared with version %s", res.Version, in.Alias, none(holder.Version), none(in.Comparison.Champion))
		return nil
	}
	if in.Comparison != nil && !in.Comparison.Better {
		res.Verdict = fmt.Sprintf("refused: version %s is registered, but version %s keeps the alias %s: %s", res.Version, holder.Version, in.Alias, in.Comparison.Reason)
		return nil
	}
	if res.Former = holder.Version; res.Former != "" {
		if err := c.Tracking.SetVersionTag(ctx, in.RegisteredModel, version.Version, tagFormer, res.Former); err != nil {
			return err
		}
	}
	if err := c.Tracking.SetAlias(ctx, in.RegisteredModel, in.Alias, version.Version); err != nil {
		return err
	}
	after, err := c.Tracking.GetAlias(ctx, in.RegisteredModel, in.Alias)
	if err != nil && !errors.Is(err, mlflow.ErrNotFound) {
		return err
	}
	if after.Version != version.Version {
		res.Verdict = fmt.Sprintf("refused: version %s had the alias %s for a moment, then someone else moved it to version %s", res.Version, in.Alias, none(after.Version))
		return nil
	}
	res.Alias = in.Alias
	res.Verdict = taken(in, *res)
	return nil
}

// taken says that the alias moved, and why.
func taken(in PromoteInput, res PromoteResult) string {
	s := fmt.Sprintf("promoted: version %s holds the alias %s", res.Version, res.Alias)
	if res.Former != "" {
		s += ", which was version " + res.Former + "'s"
	}
	if in.Comparison != nil {
		s += ": " + in.Comparison.Reason
	}
	return s
}

func none(version string) string {
	if version == "" {
		return "none"
	}
	return version
}

// recordPromotion leaves the verdict where people look for it: on the run, in its description, and as metrics.
func (c *CPU) recordPromotion(ctx context.Context, in PromoteInput, res PromoteResult) error {
	run, err := c.Tracking.GetRun(ctx, in.Run.MLflowRunID)
	if err != nil {
		return err
	}
	const heading = "\n**Promotion**: "
	note, _, _ := strings.Cut(run.Tags[mlflow.TagNote], heading)
	batch := mlflow.Batch{Tags: map[string]string{tagPromotion: res.Verdict, mlflow.TagNote: note + heading + mlflow.Escape(res.Verdict) + "\n"}}
	if res.Former != "" {
		batch.Tags[tagFormer] = res.Former
	}
	if in.Comparison != nil && in.Comparison.Figures != nil {
		if batch.Metrics, err = c.figures(ctx, in); err != nil {
			return err
		}
	}
	return c.Tracking.LogBatch(ctx, run.ID, batch)
}

// figures are the comparison's numbers as metrics of the model, the same in every attempt.
func (c *CPU) figures(ctx context.Context, in PromoteInput) ([]mlflow.Metric, error) {
	f, now := in.Comparison.Figures, time.Now().UnixMilli()
	var points []train.Point
	for _, m := range []struct {
		key   string
		value float64
	}{
		{"promotion/accuracy", f.Candidate}, {"promotion/champion_accuracy", f.Champion}, {"promotion/difference", f.Difference},
		{"promotion/difference_low", f.Low}, {"promotion/difference_high", f.High}, {"promotion/mcnemar_p", f.P},
	} {
		points = append(points, train.Point{Key: m.key, Value: m.value, Step: in.Step, Timestamp: now})
	}
	points, err := metriclog.Once(ctx, c.Store, in.Run.metrics(), "promotion-against-"+in.Comparison.Champion, points)
	if err != nil {
		return nil, err
	}
	out := make([]mlflow.Metric, len(points))
	for i, p := range points {
		out[i] = mlflow.Metric{Key: p.Key, Value: p.Value, Step: p.Step, Timestamp: p.Timestamp, ModelID: in.ModelID}
	}
	return out, nil
}
