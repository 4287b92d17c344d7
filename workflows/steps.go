package workflows

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/recipe"
)

// run is the state of one FineTune execution; each step takes what earlier steps left here and adds its own.
type run struct {
	id          activities.Run
	mlflow      bool // Plan may have opened an MLflow run
	recipe      recipe.Recipe
	searchAttrs bool // the server knows ours; an unknown one would fail the workflow task for ever
	overtime    bool // limits.max_wall_time is over

	model       activities.FetchModelResult
	train, test activities.TokenizeResult
	validation  activities.TokenizeResult // zero: epochs are evaluated on the test share
	tokenizing  workflow.Semaphore        // parts of shares under way; nil where no share has parts
	split       activities.LoadSplitResult
	checkpoint  artifact.Ref // manifest of the last epoch; zero before the first
	step        int64        // of the checkpoint
	tried       bool         // the recipe's examples were tried with the checkpoint
	microStep   int          // rows a forward pass; halved when the device is out of memory
	chosen      int          // epoch whose checkpoint becomes the model
	last        activities.ValidateResult
	best        candidate      // the epoch with the best accuracy so far
	latest      []artifact.Ref // checkpoints of the latest epochs that retention keeps
	swept       workflow.Future
	signature   activities.InferSignatureResult

	steering steering
	status   Status
	result   Result
}

var (
	cpuActivity *activities.CPU
	gpuActivity *activities.GPU
)

// identify derives the identity of a run from what a reset or a retry of the workflow does not change.
func identify(ctx workflow.Context) activities.Run {
	info := workflow.GetInfo(ctx)
	sum := sha256.Sum256([]byte(info.Namespace + "\x00" + info.WorkflowExecution.ID + "\x00" + info.FirstRunID))
	return activities.Run{Key: hex.EncodeToString(sum[:]), WorkflowRunID: info.WorkflowExecution.RunID}
}

// newRun answers the status query before anything can block.
func newRun(ctx workflow.Context) (*run, error) {
	r := &run{id: identify(ctx)}
	r.say(ctx, "plan")
	return r, r.listen(ctx)
}

// plan freezes the recipe and opens the MLflow run.
func (r *run) plan(ctx workflow.Context, raw json.RawMessage) error {
	var plan activities.PlanResult
	err := workflow.ExecuteActivity(quick(ctx, "plan"), cpuActivity.Plan, activities.PlanInput{Recipe: raw, Run: r.id, StartTime: workflow.GetInfo(ctx).WorkflowStartTime.UnixMilli()}).Get(ctx, &plan)
	if err != nil {
		// Whatever Plan opened before a server went away, the reconciliation closes; a bad recipe opens nothing.
		r.mlflow = !hasType(err, activities.TypeInvalidRecipe) && !hasType(err, activities.TypeForkByReset) && !isOutage(err)
		return unreachable(err)
	}
	r.mlflow = true
	r.id, r.recipe, r.searchAttrs = plan.Run, plan.Recipe, plan.SearchAttributes
	r.microStep, r.checkpoint = plan.Recipe.Train.BatchSize, plan.Resume
	r.result = Result{MLflowRunID: plan.Run.MLflowRunID, MLflowRunURL: plan.RunURL, ExperimentID: plan.Run.ExperimentID, Epochs: []Epoch{}}
	r.status.Name, r.status.Epochs, r.status.MLflowRunID = plan.Recipe.Name, plan.Recipe.Train.Epochs, plan.Run.MLflowRunID
	if plan.GPUPollers == 0 {
		r.status.Warning = "0 pollers on " + activities.GPUQueue + ": start a GPU worker"
	}
	return r.remember(ctx)
}

// isOutage reports whether err says that store or tracking server could not be reached.
func isOutage(err error) bool {
	return hasType(err, activities.TypeTrackingUnavailable) || hasType(err, activities.TypeStoreUnavailable)
}

// unreachable says of an outage that outlasted Plan's retries how long it was waited for.
func unreachable(err error) error {
	var app *temporal.ApplicationError
	if isOutage(err) && errors.As(err, &app) {
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("given up after %s: %s", startTimeout, app.Message()), app.Type(), nil)
	}
	return err
}

// load brings model and data into the store. They do not wait for each other, unless the data says what the classes are.
func (r *run) load(ctx workflow.Context) error {
	fetch := func() workflow.Future {
		return workflow.ExecuteActivity(bulk(ctx, "fetch "+r.recipe.Model.Base), cpuActivity.FetchModel,
			activities.FetchModelInput{Run: r.id, Model: r.recipe.Model, Labels: r.recipe.Data.Labels, MaxLength: r.recipe.Tokenizer.MaxLength, Pairs: r.recipe.Data.TextPair != ""})
	}
	split := func() workflow.Future {
		return workflow.ExecuteActivity(bulk(ctx, "load and split "+r.recipe.Data.Source), cpuActivity.LoadSplit,
			activities.LoadSplitInput{Run: r.id, Data: r.recipe.Data})
	}
	if len(r.recipe.Data.Labels) == 0 {
		if err := split().Get(ctx, &r.split); err != nil {
			return err
		}
		r.recipe.Data.Labels = r.split.Labels
		return fetch().Get(ctx, &r.model)
	}
	model, data := fetch(), split()
	return first(errors.Join(model.Get(ctx, &r.model), data.Get(ctx, &r.split)))
}

// prepare brings model and data into the store and turns text into tokens.
func (r *run) prepare(ctx workflow.Context) error {
	r.say(ctx, "load data and base model")
	if err := r.load(ctx); err != nil {
		return err
	}
	r.say(ctx, "tokenize")
	train, test := r.tokenize(ctx, r.split.Train), r.tokenize(ctx, r.split.Test)
	var invalid error
	if r.sealed() {
		invalid = r.tokenize(ctx, r.split.Validation).Get(ctx, &r.validation)
	}
	return first(errors.Join(train.Get(ctx, &r.train), test.Get(ctx, &r.test), invalid))
}

// session is what every activity on a device needs to know of the run.
func (r *run) session(ctx workflow.Context, epoch int) activities.Session {
	return activities.Session{Run: r.id, Epoch: epoch, Model: r.model.Model, Labels: r.recipe.Data.Labels,
		Tokenizer: r.recipe.Tokenizer, Train: r.recipe.Train, MicroStep: r.microStep, MaxStep: r.recipe.Limits.MaxStepTime, Started: workflow.GetInfo(ctx).WorkflowStartTime.UnixMilli()}
}

// trainEpoch trains one epoch from the last checkpoint, with smaller forward passes each time memory does not suffice.
func (r *run) trainEpoch(ctx workflow.Context, epoch int) error {
	name := fmt.Sprintf("epoch %d/%d", epoch, r.recipe.Train.Epochs)
	r.status.Epoch = epoch
	r.say(ctx, "train "+name)
	for {
		var res activities.TrainEpochResult
		err := r.onDevice(ctx, name, gpuActivity.TrainEpoch, activities.TrainEpochInput{
			Session: r.session(ctx, epoch), Tokens: r.train.Tokens, Checkpoint: r.checkpoint, Every: r.recipe.Checkpoint,
		}, &res)
		if hasType(err, activities.TypeDeviceOutOfMemory) && r.microStep > 1 {
			r.microStep = (r.microStep + 1) / 2
			r.status.Warning = fmt.Sprintf("device out of memory: %d rows a forward pass from now on", r.microStep)
			r.say(ctx, "train "+name)
			continue
		}
		if err != nil {
			return err
		}
		r.checkpoint, r.step = res.Checkpoint, res.Step
		r.result.Epochs = append(r.result.Epochs, Epoch{Epoch: epoch, TrainLoss: res.TrainLoss, Seconds: res.Seconds})
		return nil
	}
}

// validate evaluates the last checkpoint, on the validation share where there is one. On the test share it also tries the
// recipe's labelled examples after the last epoch.
func (r *run) validate(ctx workflow.Context, epoch int) error {
	name, tokens := fmt.Sprintf("validate epoch %d/%d", epoch, r.recipe.Train.Epochs), r.test.Tokens
	last := epoch == r.recipe.Train.Epochs || r.steering.stop != ""
	if r.sealed() {
		tokens, last = r.validation.Tokens, false
	}
	if err := r.evaluate(ctx, name, activities.ValidateInput{Session: r.session(ctx, epoch), Tokens: tokens}, last); err != nil {
		return err
	}
	row := &r.result.Epochs[len(r.result.Epochs)-1]
	row.EvalLoss, row.Accuracy, row.F1 = r.last.Loss, r.last.Accuracy, r.last.F1
	r.retain(ctx, epoch)
	if err := r.remember(ctx); err != nil {
		return err
	}
	return r.missed(ctx)
}

// evaluate runs held-out rows, and the labelled examples where they are to be tried, through the checkpoint.
func (r *run) evaluate(ctx workflow.Context, name string, in activities.ValidateInput, examples bool) error {
	r.say(ctx, name)
	in.Checkpoint = r.checkpoint
	if r.tried = examples; examples {
		in.Examples = r.recipe.Examples
	}
	r.last = activities.ValidateResult{}
	return r.onDevice(ctx, name, gpuActivity.Validate, in, &r.last)
}

// missed fails the run whose model got a labelled example wrong.
func (r *run) missed(ctx workflow.Context) error {
	if len(r.last.Missed) == 0 {
		return nil
	}
	if err := r.report(ctx); err != nil {
		return err
	}
	return temporal.NewNonRetryableApplicationError("the fine-tuned model fails the recipe's examples: "+strings.Join(r.last.Missed, "; "), activities.TypeExamplesFailed, nil)
}

// inferSignature runs the recipe's inputs through the trained model.
func (r *run) inferSignature(ctx workflow.Context) error {
	r.say(ctx, "infer signature")
	return r.onDevice(ctx, "infer signature", gpuActivity.InferSignature, activities.InferSignatureInput{
		Session: r.session(ctx, r.chosen), Checkpoint: r.checkpoint, Signature: r.recipe.Signature,
	}, &r.signature)
}

// logModel writes the model into the training's own MLflow run.
func (r *run) logModel(ctx workflow.Context) error {
	r.say(ctx, "log model")
	var res activities.LogModelResult
	err := workflow.ExecuteActivity(bulk(ctx, "log model "+r.recipe.Tracking.ModelName), cpuActivity.LogModel, activities.LogModelInput{
		Run: r.id, Recipe: r.recipe, Model: r.model.Model, Checkpoint: r.checkpoint, Signature: r.signature, Created: workflow.GetInfo(ctx).WorkflowStartTime.UnixMilli(),
		Split: r.split, Predictions: r.last.Predictions, Choice: r.choice(),
	}).Get(ctx, &res)
	r.result.ModelID, r.result.ModelURI = res.ModelID, res.ModelURI
	return err
}

// loadTest loads what was logged, as its users will, and measures it against the recipe's limits. promote acts on the
// verdict.
func (r *run) loadTest(ctx workflow.Context) error {
	r.say(ctx, "load test")
	return r.onDevice(ctx, "load test "+r.result.ModelURI, gpuActivity.LoadTest, activities.LoadTestInput{
		Session: r.session(ctx, r.chosen), ModelURI: r.result.ModelURI, Texts: r.split.Test, Predictions: r.last.Predictions,
		Tokens: r.test.Tokens, Limits: r.recipe.LoadTest,
	}, &r.result.LoadTest)
}

// report writes description, pictures and tables into the MLflow run. A model is worth more than its report: one that
// cannot be written is a warning.
func (r *run) report(ctx workflow.Context) error {
	r.say(ctx, "report")
	in := activities.ReportInput{Run: r.id, Recipe: r.recipe, Split: r.split, Tokens: []artifact.Ref{r.train.Tokens, r.test.Tokens},
		Checkpoint: r.checkpoint, Predictions: r.last.Predictions, ModelURI: r.result.ModelURI, Choice: r.choice(),
		Epochs: r.result.Epochs[max(0, len(r.result.Epochs)-activities.ReportEpochs):]}
	if r.sealed() {
		in.Tokens = append(in.Tokens, r.validation.Tokens)
	}
	if in.ModelURI != "" {
		in.LoadTest = &r.result.LoadTest
	}
	err := workflow.ExecuteActivity(reporting(ctx, "report"), cpuActivity.Report, in).Get(ctx, nil)
	if err == nil || temporal.IsCanceledError(err) || hasType(err, activities.TypeForkByReset) {
		return err
	}
	workflow.GetLogger(ctx).Warn("no report in MLflow", "error", err)
	r.status.Warning = "no report in MLflow: " + message(err)
	return nil
}

// promote registers the tested model, unless it missed a limit. Another promotion of the same model holds the workflow id:
// wait for it to end.
func (r *run) promote(ctx workflow.Context) error {
	if !r.result.LoadTest.Passed {
		return temporal.NewNonRetryableApplicationError("load test of "+r.result.ModelURI+": "+strings.Join(r.result.LoadTest.Reasons, "; "), activities.TypeLoadTestFailed, nil)
	}
	model := r.recipe.Tracking.RegisteredModel
	if err := r.hold(ctx); err != nil { // a person who looks at the run first
		return err
	}
	if model == "" || r.steering.skipPromotion {
		return nil
	}
	r.steering.promoting = true
	r.say(ctx, "promote")
	in, err := r.promoteInput(ctx)
	if err != nil {
		return err
	}
	for {
		var res activities.PromoteResult
		err := workflow.ExecuteChildWorkflow(promotion(ctx, model), PromoteType, in).Get(ctx, &res)
		if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
			if err := workflow.Sleep(ctx, 5*time.Second); err != nil {
				return err
			}
			continue
		}
		r.result.RegisteredModel, r.result.Version, r.result.Alias, r.result.Promotion = model, res.Version, res.Alias, res.Verdict
		if err == nil && (res.Version == "" || res.Alias != r.recipe.Tracking.Alias) {
			r.status.Warning = res.Verdict
		}
		return err
	}
}

// promoteInput says what is to be registered, and whom it must beat.
func (r *run) promoteInput(ctx workflow.Context) (activities.PromoteInput, error) {
	digest, err := r.recipe.Digest()
	t, v := r.recipe.Tracking, r.last
	in := activities.PromoteInput{Run: r.id, ModelID: r.result.ModelID, RegisteredModel: t.RegisteredModel, Alias: t.Alias, Step: r.step,
		Tags: activities.VersionTags(digest, r.split.Train.Digest, v.Metrics)}
	if t.PromoteIf == "better" {
		in.Contest = &activities.Contest{Session: r.session(ctx, r.chosen), Texts: r.split.Test, Predictions: v.Predictions, Margin: t.Margin, MaxP: t.MaxP}
	}
	return in, err
}

// bounded returns a context that ends with limits.max_wall_time.
func (r *run) bounded(ctx workflow.Context) (workflow.Context, workflow.CancelFunc) {
	ctx, cancel := workflow.WithCancel(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		if workflow.NewTimer(ctx, time.Duration(r.recipe.Limits.MaxWallTime)).Get(ctx, nil) == nil {
			r.overtime = true
			cancel()
		}
	})
	return ctx, cancel
}

// close tells MLflow how the run ended, whatever happened, and gives the workflow's error its final form.
func (r *run) close(ctx workflow.Context, err error) error {
	if r.overtime {
		limit := time.Duration(r.recipe.Limits.MaxWallTime)
		err = temporal.NewNonRetryableApplicationError(fmt.Sprintf("limits.max_wall_time of %s is over", limit), activities.TypeTimeLimit, nil)
	}
	status := activities.RunFinished
	switch {
	case temporal.IsCanceledError(err):
		status = activities.RunKilled
	case hasType(err, activities.TypeLoadTestFailed):
		// The training is complete and its figures stand; only the gate refused the model.
	case err != nil:
		status = activities.RunFailed
	}
	if !r.mlflow || hasType(err, activities.TypeForkByReset) {
		return err
	}
	if r.swept != nil {
		_ = r.swept.Get(ctx, nil) // what could not be removed costs space, nothing else
	}
	r.steering.closing = true
	r.say(ctx, "close")
	cctx, cancel := cleanup(ctx, "close run: "+status)
	defer cancel()
	in := activities.CloseRunInput{Run: r.id, Status: status, Gate: r.gate(err), Error: message(err), Steering: r.steering.log, Stopped: r.stopped()}
	if cerr := workflow.ExecuteActivity(cctx, cpuActivity.CloseRun, in).Get(cctx, nil); cerr != nil && err == nil {
		return cerr
	}
	r.say(cctx, map[bool]string{true: "completed", false: "failed"}[err == nil])
	return err
}

// gate is the load test's verdict for the MLflow run, or "" where it was not reached.
func (r *run) gate(err error) string {
	switch {
	case hasType(err, activities.TypeLoadTestFailed):
		return "failed"
	case r.result.LoadTest.Passed:
		return "passed"
	}
	return ""
}

// hasType reports whether err carries an application error of the type, at any depth.
func hasType(err error, name string) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.Type() == name
}

// message is the innermost application error's message, which names what is wrong and where.
func message(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Message()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// first unwraps a joined error to its first part: a workflow fails with one failure, which must keep its type.
func first(err error) error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()[0]
	}
	return err
}
