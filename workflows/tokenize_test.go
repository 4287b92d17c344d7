package workflows

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/artifact"
)

// TestTokenizeFansOut: a share of many files is tokenized in a bounded number of parts, of which a bounded number is under
// way at a time, and joined in order; a share of one file is tokenized in one activity.
func TestTokenizeFansOut(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var covered []activities.Part
	var joined []artifact.Ref
	running, most, calls := 0, 0, 0
	w.OnActivity(cpuActivity.LoadSplit, mock.Anything, mock.Anything).Return(activities.LoadSplitResult{
		Train: activities.Share{Name: "train", Shards: 153}, Test: activities.Share{Name: "test", Shards: 1}}, nil)
	w.OnActivity(cpuActivity.Tokenize, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.TokenizeInput) (activities.TokenizeResult, error) {
		mu.Lock()
		running++
		most, calls = max(most, running), calls+1
		mu.Unlock()
		defer func() {
			mu.Lock()
			running--
			mu.Unlock()
		}()
		switch {
		case in.Part != nil:
			mu.Lock()
			covered = append(covered, *in.Part)
			mu.Unlock()
			return activities.TokenizeResult{Tokens: ref(fmt.Sprint("part ", in.Part.From)), Cached: true}, nil
		case len(in.Parts) > 0:
			joined = in.Parts
			return activities.TokenizeResult{Tokens: ref("joined")}, nil
		}
		return activities.TokenizeResult{Tokens: ref(in.Share.Name)}, nil
	})
	var trained artifact.Ref
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.TrainEpochInput) (activities.TrainEpochResult, error) {
		trained = in.Tokens
		return activities.TrainEpochResult{Checkpoint: ref("checkpoint")}, nil
	})
	w.happy()
	w.run()
	require.NoError(t, w.GetWorkflowError())
	slices.SortFunc(covered, func(a, b activities.Part) int { return a.From - b.From })
	next := 0
	var want []artifact.Ref
	for _, part := range covered {
		if part.From != next || part.To <= part.From {
			t.Errorf("part %+v after %d files", part, next)
		}
		next = part.To
		want = append(want, ref(fmt.Sprint("part ", part.From)))
	}
	if next != 153 || len(covered) != tokenizeParts || calls != tokenizeParts+2 || most > tokenizeParallel+1 {
		t.Errorf("%d parts cover %d files in %d calls, %d at a time", len(covered), next, calls, most)
	}
	if diff := cmp.Diff(want, joined); diff != "" {
		t.Errorf("joined (-want +got):\n%s", diff)
	}
	if trained != ref("joined") {
		t.Errorf("trained on %v", trained)
	}
}

// TestLabelsOfTheData: where the recipe states no labels, the model is fetched for those that the data has.
func TestLabelsOfTheData(t *testing.T) {
	w := newWorld(t)
	w.recipe.Data.Labels = nil
	labels := []string{"eggs", "ham", "spam"}
	w.OnActivity(cpuActivity.LoadSplit, mock.Anything, mock.Anything).Return(activities.LoadSplitResult{Labels: labels}, nil)
	var fetched, trained []string
	w.OnActivity(cpuActivity.FetchModel, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.FetchModelInput) (activities.FetchModelResult, error) {
		fetched = in.Labels
		return activities.FetchModelResult{Model: ref("model")}, nil
	})
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.TrainEpochInput) (activities.TrainEpochResult, error) {
		trained = in.Labels
		return activities.TrainEpochResult{Checkpoint: ref("checkpoint")}, nil
	})
	w.happy()
	w.run()
	require.NoError(t, w.GetWorkflowError())
	if !slices.Equal(fetched, labels) || !slices.Equal(trained, labels) {
		t.Errorf("fetched for %q, trained on %q, want %q", fetched, trained, labels)
	}
}
