package activities

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/testsuite"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/artifact/artifacttest"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// TestSweep sweeps the real gateway of what two finished epochs have left beside a living attempt at the third.
func TestSweep(t *testing.T) {
	gateway := artifacttest.StartGateway(t)
	store := gateway.Store(t, "runs")
	b := newBench(t)
	b.store, b.gpu.Store = store, store
	b.input.Model, b.input.Tokens = b.putFolder(t), b.putTokens(t)
	b.input.Every = recipe.Checkpoint{EverySteps: 4}
	var ends []artifact.Ref
	for epoch := 1; epoch <= 2; epoch++ {
		in := b.input
		if in.Epoch = epoch; epoch > 1 {
			in.Checkpoint = ends[0]
		}
		res, err := b.train(t, in)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, res.Checkpoint)
	}
	client := s3.NewFromConfig(gateway.AWS(), func(o *s3.Options) { o.UsePathStyle = true })
	living := b.run.epoch(3) + "/attempt-9-001/step-000000030/weights.safetensors"
	for _, key := range []string{b.run.epoch(1) + "/attempt-5-001/step-000000004/optimizer.safetensors", living} {
		if _, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("runs/" + key)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{living + "-1", b.run.metrics() + "/x", "feed/epoch-001/attempt-1-001/step-000000004/manifest.json"} { // of others
		if _, err := store.Put(t.Context(), key, strings.NewReader("x"), nil); err != nil {
			t.Fatal(err)
		}
	}
	before := keys(t, store)
	sweep := func(keep ...artifact.Ref) SweepResult {
		t.Helper()
		cpu := &CPU{Store: store}
		env := (&testsuite.WorkflowTestSuite{}).NewTestActivityEnvironment()
		env.RegisterActivity(cpu)
		v, err := env.ExecuteActivity(cpu.Sweep, SweepInput{Run: b.run, Through: 2, Keep: keep})
		if err != nil {
			t.Fatal(err)
		}
		var res SweepResult
		if err := v.Get(&res); err != nil {
			t.Fatal(err)
		}
		return res
	}
	for i, want := range []int{15, 0} { // of 18 objects, the last checkpoint's three stay; the second sweep finds nothing to do
		if res := sweep(ends[1]); res.Objects != want || res.Uploads != 1-i {
			t.Errorf("sweep %d: %+v, want %d objects and %d uploads", i, res, want, 1-i)
		}
	}
	if _, err := train.Load(t.Context(), store, ends[1]); err != nil {
		t.Errorf("the kept checkpoint: %v", err)
	}
	after := keys(t, store)
	for key := range before {
		if swept := strings.HasPrefix(key, b.run.epoch(1)+"/") || strings.HasPrefix(key, b.run.epoch(2)+"/") && !strings.Contains(key, "/step-000000022/"); swept == after[key] {
			t.Errorf("%s is left: %v, want %v", key, after[key], !swept)
		}
	}
	uploads, err := client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String("bucket")})
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, u := range uploads.Uploads {
		left = append(left, strings.TrimPrefix(aws.ToString(u.Key), "runs/"))
	}
	if diff := cmp.Diff([]string{living}, left); diff != "" {
		t.Errorf("unfinished uploads (-want +got):\n%s", diff)
	}
	if t.Failed() {
		t.Log(slices.Sorted(maps.Keys(after)))
	}
}

// TestSweepKeepsAllRatherThanGuess: where a kept checkpoint cannot be read, nothing is removed.
func TestSweepKeepsAllRatherThanGuess(t *testing.T) {
	b := newBench(t)
	if _, err := b.train(t, b.input); err != nil {
		t.Fatal(err)
	}
	before := keys(t, b.store)
	cpu := &CPU{Store: b.store}
	env := (&testsuite.WorkflowTestSuite{}).NewTestActivityEnvironment()
	env.RegisterActivity(cpu)
	_, err := env.ExecuteActivity(cpu.Sweep, SweepInput{Run: b.run, Through: 1, Keep: []artifact.Ref{{URI: "mem://gone", SHA256: strings.Repeat("0", 64), Bytes: 1}}})
	if err == nil {
		t.Error("no error")
	}
	if diff := cmp.Diff(before, keys(t, b.store)); diff != "" {
		t.Errorf("objects (-before +after):\n%s", diff)
	}
}

// keys lists a store.
func keys(t *testing.T, s artifact.Store) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all[info.Key] = true
	}
	return all
}
