package activities

import (
	"context"
	"fmt"
	"slices"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/classifier"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
)

// InferSignatureInput is the model and the texts to run through it.
type InferSignatureInput struct {
	Session
	Checkpoint artifact.Ref     `json:"checkpoint"`
	Signature  recipe.Signature `json:"signature"`
}

// Prediction is one output of the text-classification pipeline.
type Prediction = classifier.Prediction

// InferSignatureResult is the signature and the outputs it was inferred from.
type InferSignatureResult struct {
	Signature mlflow.Signature `json:"signature"`
	Outputs   []Prediction     `json:"outputs"` // of the recipe's signature inputs
	Example   []Prediction     `json:"example"` // of its input example
}

// InferSignature runs the recipe's inputs through the trained model and describes inputs, outputs and params as Python's
// infer_signature(inputs, outputs, params=model_config) does.
func (g *GPU) InferSignature(ctx context.Context, in InferSignatureInput) (res InferSignatureResult, err error) {
	defer func() { err = edge(failed(ctx, in.Session, err)) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	beat(ctx, Heartbeat{Phase: "infer signature"})
	eng, err := g.engine(ctx, in.Session, in.Checkpoint, false)
	if err != nil {
		return res, err
	}
	texts := slices.Concat(in.Signature.Inputs, in.Signature.InputExample)
	logits, err := g.classify(ctx, eng, in.Session, texts)
	if err != nil {
		g.drop()
		return res, fmt.Errorf("signature inputs: %w", err)
	}
	predictions := classifier.Predictions(in.Labels, logits)
	n := len(in.Signature.Inputs)
	res.Outputs, res.Example = predictions[:n], predictions[n:]
	res.Signature = mlflow.TextClassification(in.Signature.Inputs[0].Pair != "", in.Signature.ModelConfig.BatchSize)
	return res, nil
}
