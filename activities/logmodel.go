package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/metriclog"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// LogModelInput is everything that makes the logged model.
type LogModelInput struct {
	Run        Run                  `json:"run"`
	Recipe     recipe.Recipe        `json:"recipe"`
	Model      artifact.Ref         `json:"model"` // manifest of the base model
	Checkpoint artifact.Ref         `json:"checkpoint"`
	Signature  InferSignatureResult `json:"signature"`
	Created    int64                `json:"created"` // Unix milliseconds, equal in every attempt

	// For the model card.
	Split       LoadSplitResult `json:"split"`
	Predictions artifact.Ref    `json:"predictions"` // of the checkpoint on the held-out rows
	Choice      Choice          `json:"choice"`
}

// LogModelResult names the logged model.
type LogModelResult struct {
	ModelID  string `json:"model_id"`
	ModelURI string `json:"model_uri"` // models:/m-…
}

// LogModel writes the checkpoint's weights as an MLflow transformers model into the training's own run. The logged model
// is found by the run's key if an earlier attempt made it; its files are uploaded again and are final only together.
func (c *CPU) LogModel(ctx context.Context, in LogModelInput) (res LogModelResult, err error) {
	defer func() { err = edge(err) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	beat(ctx, Heartbeat{Phase: "log model"})
	checkpoint, err := train.Load(ctx, c.Store, in.Checkpoint)
	if err != nil {
		return res, err
	}
	logged, err := c.Tracking.EnsureModel(ctx, mlflow.ModelSpec{ExperimentID: in.Run.ExperimentID, RunID: in.Run.MLflowRunID,
		Name: in.Recipe.Tracking.ModelName, Key: in.Run.Key + "/model", Step: checkpoint.State.Step, Params: params(in.Recipe)})
	if err != nil {
		return res, err
	}
	dir, err := os.MkdirTemp(c.Scratch, "model-")
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir)
	if err := c.writeModel(ctx, in, checkpoint, logged, dir); err != nil {
		return res, err
	}
	if err := c.Tracking.UploadDir(ctx, logged.ArtifactURI, filepath.Join(dir, "model"), func(int64) { beat(ctx, Heartbeat{Phase: "upload model"}) }); err != nil {
		return res, err
	}
	if err := c.describeModel(ctx, in, checkpoint, logged.ID); err != nil {
		return res, err
	}
	if err := c.Tracking.FinalizeModel(ctx, logged.ID, mlflow.ModelReady); err != nil {
		return res, err
	}
	return LogModelResult{ModelID: logged.ID, ModelURI: "models:/" + logged.ID}, nil
}

// maxModelNote is how many characters MLflow's database keeps of a logged model's tag.
const maxModelNote = 5000

// writeModel writes the model directory below dir/model, and the model card as the description of the model's page.
func (c *CPU) writeModel(ctx context.Context, in LogModelInput, checkpoint train.Checkpoint, logged mlflow.LoggedModel, dir string) error {
	base, err := materialize(ctx, c.Store, c.CacheDir, c.Scratch, in.Model)
	if err != nil {
		return err
	}
	weights, err := artifact.Fetch(ctx, c.Store, checkpoint.Weights, filepath.Join(dir, "objects"))
	if err != nil {
		return fmt.Errorf("weights of the last checkpoint: %w", err)
	}
	config, err := classifierConfig(filepath.Join(base, "config.json"), in.Recipe.Data.Labels)
	if err != nil {
		return err
	}
	terms, err := readLicence(base)
	if err != nil {
		return err
	}
	card, err := c.modelCard(ctx, in, checkpoint, terms)
	if err != nil {
		return err
	}
	err = mlflow.WriteModelDir(filepath.Join(dir, "model"), mlflow.DirSpec{
		ModelID: logged.ID, RunID: in.Run.MLflowRunID, ArtifactURI: logged.ArtifactURI, Created: time.UnixMilli(in.Created).UTC(), BaseModel: baseName(in.Recipe.Model.Base),
		Config: config, Weights: weights, TokenizerDir: base, MaxLength: in.Recipe.Tokenizer.MaxLength,
		Signature: in.Signature.Signature, BatchSize: in.Recipe.Signature.ModelConfig.BatchSize, InputExample: in.Recipe.Signature.InputExample,
		License: terms.text, ModelCard: card.Markdown(),
	})
	if err != nil {
		return err
	}
	return c.Tracking.SetModelTags(ctx, logged.ID, map[string]string{mlflow.TagNote: mlflow.CleanText(string(card.Markdown()), maxModelNote)}) // its page's description
}

// describeModel links the metrics of the model's step to it and logs its model_config as Python does. The points come
// from the metric log, so that linking them adds no second point to the run.
func (c *CPU) describeModel(ctx context.Context, in LogModelInput, checkpoint train.Checkpoint, id string) error {
	events, err := metriclog.Events(ctx, c.Store, in.Run.metrics())
	if err != nil {
		return err
	}
	var metrics []mlflow.Metric
	for _, p := range events {
		if p.Step != checkpoint.State.Step {
			continue
		}
		m := mlflow.Metric{Key: p.Key, Value: p.Value, Step: p.Step, Timestamp: p.Timestamp, ModelID: id}
		if share := in.evaluated(p.Key); share.Digest != "" {
			m.DatasetName, m.DatasetDigest = datasetName(in.Recipe.Data), share.mlflowDigest()
		}
		metrics = append(metrics, m)
	}
	batch := mlflow.Batch{Metrics: metrics, Params: map[string]string{"batch_size": strconv.Itoa(in.Recipe.Signature.ModelConfig.BatchSize)}}
	return c.Tracking.LogBatch(ctx, in.Run.MLflowRunID, batch)
}

// evaluated is the share that a metric was measured on; zero for what was not measured on held-out rows.
func (in LogModelInput) evaluated(key string) Share {
	switch {
	case strings.HasPrefix(key, "test_"), strings.HasPrefix(key, "eval_") && !in.Choice.Sealed:
		return in.Split.Test
	case strings.HasPrefix(key, "eval_"):
		return in.Split.Validation
	}
	return Share{}
}

// classifierConfig is the base model's config.json as a sequence classifier over the labels.
func classifierConfig(path string, labels []string) ([]byte, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // 1e-12 must stay as it was written
	if err := dec.Decode(&config); err != nil {
		return nil, &modelError{path, "config.json: " + err.Error()}
	}
	classes := map[string]string{"distilbert": "DistilBertForSequenceClassification", "bert": "BertForSequenceClassification", "roberta": "RobertaForSequenceClassification"}
	modelType, _ := config["model_type"].(string)
	config["architectures"] = []string{classes[modelType]}
	config["problem_type"] = "single_label_classification"
	id2label, label2id := map[string]string{}, map[string]int{}
	for i, label := range labels {
		id2label[strconv.Itoa(i)], label2id[label] = label, i
	}
	config["id2label"], config["label2id"] = id2label, label2id
	config["torch_dtype"] = "float32"
	for _, key := range []string{"_name_or_path", "dtype", "num_labels", "transformers_version"} {
		delete(config, key)
	}
	return json.MarshalIndent(config, "", "  ")
}

// baseName is what MLmodel shows as the source of the model: the hub's name, or the folder's.
func baseName(uri string) string {
	if name, ok := strings.CutPrefix(uri, "hf://"); ok {
		return name
	}
	return filepath.Base(uri)
}

// upload writes a small artifact.
func (c *CPU) upload(ctx context.Context, artifactURI, name string, body []byte) error {
	return upload(ctx, c.Tracking, artifactURI, name, body)
}

func upload(ctx context.Context, tracking *mlflow.Client, artifactURI, name string, body []byte) error {
	return tracking.UploadArtifact(ctx, artifactURI, name, bytes.NewReader(body), int64(len(body)), nil)
}
