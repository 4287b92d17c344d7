package activities

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/classifier"
	"github.com/duratune/duratune/internal/compare"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// Contest is what a candidate is compared by with the version that holds the alias.
type Contest struct {
	Session
	Texts       Share        `json:"texts"`       // the test rows
	Predictions artifact.Ref `json:"predictions"` // of the candidate on them
	Margin      float64      `json:"margin"`      // by how much more accuracy it must win
	MaxP        float64      `json:"max_p"`       // and at which p-value at most
}

// CompareChampionInput is a candidate and whom it challenges.
type CompareChampionInput struct {
	Contest
	RegisteredModel string `json:"registered_model"`
	Alias           string `json:"alias"`
	ModelID         string `json:"model_id"` // of the candidate
}

// Comparison is how a candidate fared against the present champion.
type Comparison struct {
	Champion string          `json:"champion,omitempty"` // version that held the alias; "": none did
	Better   bool            `json:"better"`             // whether the candidate may take the alias
	Reason   string          `json:"reason"`             // in a sentence, figures included
	Figures  *compare.Result `json:"figures,omitempty"`  // nil: there was nobody, or nobody comparable
}

// CompareChampion loads the version that holds the alias, has the same engine classify the same test rows, and compares.
// A champion that cannot be compared with keeps the alias: a person must decide.
func (g *GPU) CompareChampion(ctx context.Context, in CompareChampionInput) (res Comparison, err error) {
	defer func() { err = edge(failed(ctx, in.Session, err)) }()
	beat(ctx, Heartbeat{Phase: "compare with the champion"})
	holder, err := g.Tracking.GetAlias(ctx, in.RegisteredModel, in.Alias)
	switch {
	case errors.Is(err, mlflow.ErrNotFound):
		return Comparison{Better: true, Reason: "no version held the alias"}, nil
	case errors.Is(err, mlflow.ErrRejected): // it will refuse the promotion as well, which says what to do
		return Comparison{Reason: "its holder cannot be read: " + redact(err.Error())}, nil
	case err != nil:
		return res, err
	case holder.ModelID == in.ModelID:
		return Comparison{Champion: holder.Version, Better: true, Reason: "it held the alias already"}, nil
	}
	res.Champion = holder.Version
	g.drop() // training is over: its memory belongs to the champion
	figures, err := g.contest(ctx, in, holder)
	if err != nil && (ctx.Err() != nil || retryable(err)) {
		return res, err
	}
	if err != nil {
		res.Reason = fmt.Sprintf("version %s cannot be compared with: %s", holder.Version, redact(err.Error()))
		return res, nil
	}
	res.Figures, res.Better = &figures, figures.Better(in.Margin, in.MaxP)
	res.Reason = fmt.Sprintf("%s; asked for: a margin of %g at p ≤ %g", figures, in.Margin, in.MaxP)
	return res, nil
}

// contest has both models' predictions of the test rows compared.
func (g *GPU) contest(ctx context.Context, in CompareChampionInput, holder mlflow.Version) (compare.Result, error) {
	dir, err := os.MkdirTemp(g.Scratch, "champion-")
	if err != nil {
		return compare.Result{}, err
	}
	defer os.RemoveAll(dir)
	champion, err := g.openChampion(ctx, in, holder, dir)
	if err != nil {
		return compare.Result{}, err
	}
	defer champion.Close()
	translate, err := sameLabels(champion.Labels, in.Labels)
	if err != nil {
		return compare.Result{}, err
	}
	logits, rows, err := readPredictions(ctx, g.Store, g.CacheDir, in.Predictions, len(in.Labels))
	if err != nil {
		return compare.Result{}, err
	}
	var labels, candidates, champions []int
	var texts []recipe.Text
	classify := func() error {
		out, err := champion.Logits(ctx, texts, func(done int) {
			beat(ctx, Heartbeat{Phase: "evaluate the champion", Percent: 100 * float64(len(champions)+done) / float64(max(1, len(rows)))})
		})
		for _, row := range out {
			champions = append(champions, translate[train.Argmax(train.Softmax(row))])
		}
		texts = texts[:0]
		return err
	}
	for row, err := range readShare(ctx, g.Store, g.CacheDir, in.Texts) {
		if err != nil {
			return compare.Result{}, err
		}
		i := len(labels)
		if i >= len(rows) || rows[i] != row.Index {
			return compare.Result{}, fmt.Errorf("predictions %s are not of the rows %s", in.Predictions.URI, in.Texts.Rows.URI)
		}
		labels, candidates = append(labels, row.Label), append(candidates, train.Argmax(train.Softmax(logits[i])))
		if texts = append(texts, recipe.Text{Text: row.Text, Pair: row.Pair}); len(texts) == compareRows {
			if err := classify(); err != nil {
				return compare.Result{}, err
			}
		}
	}
	if err := classify(); err != nil {
		return compare.Result{}, err
	}
	return compare.Paired(labels, candidates, champions, in.Train.Seed)
}

// openChampion downloads the version's files into dir and opens them. Texts are cut where the champion's own recipe cut
// them, if it was logged here.
func (g *GPU) openChampion(ctx context.Context, in CompareChampionInput, holder mlflow.Version, dir string) (*classifier.Classifier, error) {
	ref, err := g.download(ctx, fmt.Sprintf("models:/%s/%s", holder.Name, holder.Version), dir)
	if err != nil {
		return nil, err
	}
	spec := in.spec("")
	spec.Labels, spec.MaxLength = nil, 0
	if ref.ModelID != "" {
		logged, err := g.Tracking.GetModel(ctx, ref.ModelID)
		if err != nil {
			return nil, err
		}
		spec.MaxLength, _ = strconv.Atoi(logged.Params["max_length"]) // 0: the tokenizer's own
	}
	c, err := classifier.Open(ctx, dir, g.Open, spec)
	return c, inSource(err, dir, fmt.Sprintf("models:/%s/%s", holder.Name, holder.Version))
}

// labelsError says that a champion knows other classes than the candidate.
type labelsError struct{ champion, candidate []string }

func (e *labelsError) Error() string {
	return fmt.Sprintf("its labels are %q, the candidate's are %q: move the alias by hand, or register under another name", e.champion, e.candidate)
}

// sameLabels maps the champion's class indexes to the candidate's; the order may differ, the names may not.
func sameLabels(champion, candidate []string) ([]int, error) {
	to := make([]int, len(champion))
	for i, label := range champion {
		to[i] = slices.Index(candidate, label)
	}
	if len(champion) != len(candidate) || slices.Contains(to, -1) {
		return nil, &labelsError{champion, candidate}
	}
	return to, nil
}
