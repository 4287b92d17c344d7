package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/workflows"
)

// line is what is printed of a case.
type line struct {
	Case       string  `json:"case"`
	Rows       int     `json:"rows"`
	TextMB     int64   `json:"text_mb"` // of the source's files
	Workers    int     `json:"workers"`
	Cores      int     `json:"cores"`
	LoadSplit  float64 `json:"load_split_seconds"`
	Tokenize   float64 `json:"tokenize_seconds"` // from the first part's start to the last join's end
	Seconds    float64 `json:"seconds"`
	CPU        float64 `json:"cpu_seconds"` // of all workers
	PerCore    float64 `json:"rows_per_cpu_second"`
	PeakMB     int64   `json:"peak_mb_a_worker"`
	Events     int     `json:"history_events"` // of the workflow up to the first step of training
	HistoryKB  int64   `json:"history_kb"`
	Tokens     int64   `json:"tokens"`
	Digest     string  `json:"digest"` // over the digests of the training share's token files, in order
	Killed     int     `json:"workers_killed,omitempty"`
	Retried    int     `json:"parts_retried,omitempty"` // parts of which an attempt was lost
	SameTokens *bool   `json:"same_tokens,omitempty"`   // as the run without kills
}

// filesRows is how many rows the generator puts into a file.
const fileRows = 250_000

var words = strings.Fields("free win cash prize call now text claim urgent mobile reply stop award guaranteed offer meet lunch tomorrow home dinner " +
	"sorry late train office movie tonight thanks love mum birthday weekend happy see you later ok sure maybe game match rain sun garden book music " +
	"the a of to and in is it for on with as at by from this that be are was were will can could would should not no yes very more some any all")

// generate makes n rows of about 100 bytes in CSV files below dir, the same ones each time.
func generate(dir string, n int) (bytes int64, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	r := rand.New(rand.NewPCG(7, uint64(n)))
	for first := 0; first < n; first += fileRows {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("part-%05d.csv", first/fileRows)))
		if err != nil {
			return 0, err
		}
		w := bufio.NewWriterSize(f, 1<<20)
		fmt.Fprintln(w, "text,label")
		for i := first; i < min(n, first+fileRows); i++ {
			label := r.IntN(2)
			for range 12 + r.IntN(12) {
				w.WriteString(words[r.IntN(len(words)/2)+label*len(words)/2*r.IntN(2)]) //nolint:errcheck // Flush reports it
				w.WriteByte(' ')                                                        //nolint:errcheck // as above
			}
			fmt.Fprintf(w, "%d,%s\n", i, [...]string{"ham", "spam"}[label])
		}
		info, statErr := f.Stat()
		if err := errors.Join(w.Flush(), statErr, f.Close()); err != nil {
			return 0, err
		}
		bytes += info.Size()
	}
	return bytes, nil
}

// measure runs one fine-tune up to the first step of training. during (may be nil) does what it likes with the workers
// from the first Tokenize on, until its context ends, and returns how many it killed.
func (b *bench) measure(ctx context.Context, n, workers int, during func(ctx context.Context, id string, c *crew) int) (out line, err error) {
	b.cases++
	dir := filepath.Join(b.State, "data", fmt.Sprint(n))
	bytes, err := generate(dir, n)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	crew, err := b.hire(workers, fmt.Sprint("case-", b.cases), dir)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, crew.dismiss()) }()
	id := fmt.Sprintf("databench/%d-%d", b.cases, n)
	recipe := map[string]any{"name": "databench", "model": map[string]any{"base": "file:all-minilm-l6-v2"}, "tokenizer": map[string]any{"max_length": 64},
		"data": map[string]any{"source": "file://" + dir, "format": "csv", "labels": []string{"ham", "spam"}}}
	if _, err := b.Client().ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: activities.Queue}, workflows.FineTuneType, recipe); err != nil {
		return out, err
	}
	out = line{Case: "rows", Rows: n, TextMB: bytes >> 20, Workers: workers, Cores: runtime.NumCPU()}
	if during != nil {
		if err := b.await(ctx, id, "Tokenize"); err != nil {
			return out, err
		}
		killing, stop := context.WithCancel(ctx)
		killed := make(chan int, 1)
		go func() { killed <- during(killing, id, crew) }()
		defer func() { stop(); out.Killed = <-killed }()
	}
	if err := b.await(ctx, id, "TrainEpoch"); err != nil {
		return out, err
	}
	out.CPU, out.PeakMB = crew.usage()
	if err := b.read(ctx, id, crew.prefix, &out); err != nil {
		return out, err
	}
	out.PerCore = float64(n) / out.CPU
	return out, b.Client().TerminateWorkflow(ctx, id, "", "measured")
}

// await waits until an activity of the run is pending.
func (b *bench) await(ctx context.Context, id, activity string) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		d, err := b.Client().DescribeWorkflow(ctx, id, "")
		if err != nil {
			return err
		}
		if s := d.RawResponse.GetWorkflowExecutionInfo().GetStatus(); s != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return fmt.Errorf("%s: %s: %w", id, s, b.Client().GetWorkflow(ctx, id, "").Get(ctx, nil))
		}
		for _, a := range d.RawResponse.GetPendingActivities() {
			if a.GetActivityType().GetName() == activity {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read fills in what the history says.
func (b *bench) read(ctx context.Context, id, prefix string, out *line) error {
	kinds := map[int64]string{}
	begun := map[int64]time.Time{}
	var tokenizing, tokenized time.Time
	var tokens artifact.Ref
	it := b.Client().GetWorkflowHistory(ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			return err
		}
		out.Events++
		switch e.GetEventType() {
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
			a := e.GetActivityTaskScheduledEventAttributes()
			kinds[e.GetEventId()], begun[e.GetEventId()] = a.GetActivityType().GetName(), e.GetEventTime().AsTime()
			if a.GetActivityType().GetName() == "TrainEpoch" {
				var in activities.TrainEpochInput
				if err := converter.GetDefaultDataConverter().FromPayloads(a.GetInput(), &in); err != nil {
					return err
				}
				tokens = in.Tokens
			}
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_STARTED:
			if started := e.GetActivityTaskStartedEventAttributes(); started.GetAttempt() > 1 && kinds[started.GetScheduledEventId()] == "Tokenize" {
				out.Retried++
			}
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
			scheduled, end := e.GetActivityTaskCompletedEventAttributes().GetScheduledEventId(), e.GetEventTime().AsTime()
			switch kinds[scheduled] {
			case "LoadSplit":
				out.LoadSplit = end.Sub(begun[scheduled]).Seconds()
			case "Tokenize":
				if tokenizing.IsZero() || begun[scheduled].Before(tokenizing) {
					tokenizing = begun[scheduled]
				}
				tokenized = end
			}
		default:
		}
	}
	out.Tokenize = tokenized.Sub(tokenizing).Seconds()
	out.Seconds = out.LoadSplit + out.Tokenize
	d, err := b.Client().DescribeWorkflow(ctx, id, "")
	if err != nil {
		return err
	}
	out.HistoryKB = d.RawResponse.GetWorkflowExecutionInfo().GetHistorySizeBytes() >> 10
	return b.digest(ctx, prefix, tokens, out)
}

// store opens the workers' store.
func (b *bench) store(ctx context.Context, uri string) (artifact.Store, error) {
	config := b.aws()
	return artifact.Open(ctx, uri, artifact.Config{AWS: &config})
}

// aws is how to reach the stack's S3 gateway.
func (b *bench) aws() aws.Config {
	return aws.Config{Region: "us-east-1", BaseEndpoint: aws.String(b.S3URL()), Credentials: credentials.NewStaticCredentialsProvider(b.AccessKey, b.SecretKey, "")}
}

// digest identifies the training share's tokens.
func (b *bench) digest(ctx context.Context, uri string, ref artifact.Ref, out *line) error {
	store, err := b.store(ctx, uri)
	if err != nil {
		return err
	}
	r, err := store.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var shards activities.Shards
	if err := json.Unmarshal(body, &shards); err != nil {
		return fmt.Errorf("%s: %w", ref.URI, err)
	}
	h := sha256.New()
	for _, shard := range shards.Shards {
		fmt.Fprintln(h, shard.SHA256)
	}
	out.Tokens, out.Digest = shards.Stats.Tokens, hex.EncodeToString(h.Sum(nil))
	return nil
}

// kills is how many workers are killed; the server misses each of them only after a minute without its heartbeat.
const kills = 2

// kill runs the same rows twice, undisturbed and with two workers of which, while they tokenize, one after the other is
// killed in the middle of a part and started again, and compares the tokens. The second run has a store of its own, so that it finds nothing.
func (b *bench) kill(ctx context.Context, n int, r *rand.Rand, encode *json.Encoder) error {
	want, err := b.measure(ctx, n, 1, nil)
	if err != nil {
		return err
	}
	if err := encode.Encode(want); err != nil {
		return err
	}
	got, err := b.measure(ctx, n, 2, func(ctx context.Context, id string, c *crew) int { return b.killBusy(ctx, id, c, r) })
	if err != nil {
		return err
	}
	same := got.Digest == want.Digest && got.Tokens == want.Tokens
	got.Case, got.SameTokens = "kill", &same
	if err := encode.Encode(got); err != nil {
		return err
	}
	if !same || got.Killed == 0 || got.Retried == 0 {
		return fmt.Errorf("after %d kills and %d second attempts: tokens %s, want %s", got.Killed, got.Retried, got.Digest, want.Digest)
	}
	return nil
}

// killBusy kills a worker that is at a part of the run, one at random, and another one (or the same) later.
func (b *bench) killBusy(ctx context.Context, id string, c *crew, r *rand.Rand) (killed int) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for killed < kills {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return killed
		}
		d, err := b.Client().DescribeWorkflow(ctx, id, "")
		if err != nil {
			continue // the client tries again; the case's own context ends it
		}
		var busy []int
		for _, a := range d.RawResponse.GetPendingActivities() {
			pid, _, _ := strings.Cut(a.GetLastWorkerIdentity(), "@")
			n, err := strconv.Atoi(pid)
			if a.GetActivityType().GetName() == "Tokenize" && a.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED && err == nil {
				busy = append(busy, n)
			}
		}
		if len(busy) > 0 && c.kill(busy[r.IntN(len(busy))]) {
			killed++
		}
	}
	return killed
}
