package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/artifact"
)

const (
	tokenizeParts    = 16 // of a share at most, however many files it has: the history stays small
	tokenizeParallel = 8  // parts of a run under way at a time
)

// tokenize turns a share into tokens: in one activity, or, if it has several files, part by part on as many workers as
// there are.
func (r *run) tokenize(ctx workflow.Context, share activities.Share) workflow.Future {
	in := activities.TokenizeInput{Run: r.id, Share: share, Model: r.model.Model, MaxLength: r.recipe.Tokenizer.MaxLength}
	if share.Shards <= 1 {
		return workflow.ExecuteActivity(bulk(ctx, "tokenize "+share.Name), cpuActivity.Tokenize, in)
	}
	if r.tokenizing == nil {
		r.tokenizing = workflow.NewSemaphore(ctx, tokenizeParallel)
	}
	future, settle := workflow.NewFuture(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) { settle.Set(r.tokenizeParts(ctx, in)) })
	return future
}

// tokenizeParts fans out over the parts of a share and joins what comes back.
func (r *run) tokenizeParts(ctx workflow.Context, in activities.TokenizeInput) (res activities.TokenizeResult, err error) {
	parts := in.Share.Parts(tokenizeParts)
	futures := make([]workflow.Future, len(parts))
	for i, part := range parts {
		if err := r.tokenizing.Acquire(ctx, 1); err != nil {
			return res, err
		}
		one := in
		one.Part = &part
		futures[i] = workflow.ExecuteActivity(bulk(ctx, fmt.Sprintf("tokenize %s, part %d/%d", in.Share.Name, i+1, len(parts))), cpuActivity.Tokenize, one)
		workflow.Go(ctx, func(ctx workflow.Context) {
			_ = futures[i].Get(ctx, nil) // read below
			r.tokenizing.Release(1)
		})
	}
	in.Parts = make([]artifact.Ref, len(parts))
	cached := true
	for i, future := range futures {
		var part activities.TokenizeResult
		if err := future.Get(ctx, &part); err != nil {
			return res, err
		}
		in.Parts[i], cached = part.Tokens, cached && part.Cached
	}
	err = workflow.ExecuteActivity(bulk(ctx, "join tokens of "+in.Share.Name), cpuActivity.Tokenize, in).Get(ctx, &res)
	res.Cached = cached
	return res, err
}
