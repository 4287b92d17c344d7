package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/compare"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// promote runs one attempt.
func (r *reporting) promote(t *testing.T, in PromoteInput) (PromoteResult, error) {
	t.Helper()
	env := r.env(t)
	env.RegisterActivity(r.cpu)
	v, err := env.ExecuteActivity(r.cpu.Promote, in)
	var res PromoteResult
	if err == nil {
		err = v.Get(&res)
	}
	return res, err
}

// candidate is a model of the run, to be promoted.
func (r *reporting) candidate() PromoteInput {
	return PromoteInput{Run: r.run, ModelID: modelID(r.in.ModelURI), RegisteredModel: "sms", Alias: "champion", Step: 11,
		Tags: VersionTags("r", "d", train.Metrics{Accuracy: 0.75})}
}

// reign makes a model of another run the version that holds the alias.
func (r *reporting) reign(t *testing.T, files map[string]string) mlflow.Version {
	t.Helper()
	ctx, c := t.Context(), r.cpu.Tracking
	m, err := c.EnsureModel(ctx, mlflow.ModelSpec{ExperimentID: r.run.ExperimentID, RunID: r.run.MLflowRunID, Name: "old", Key: fmt.Sprint("old", len(r.mlflow.Models()))})
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range files {
		if err := r.cpu.upload(ctx, m.ArtifactURI, name, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.EnsureRegisteredModel(ctx, "sms", "", nil); err != nil {
		t.Fatal(err)
	}
	v, err := c.EnsureVersion(ctx, mlflow.VersionSpec{Name: "sms", ModelID: m.ID, RunID: r.run.MLflowRunID, Key: m.ID})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetAlias(ctx, "sms", "champion", v.Version); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPromote(t *testing.T) {
	figures := &compare.Result{Rows: 4, Candidate: 0.75, Champion: 0.5, Difference: 0.25, P: 1}
	won, lost := &Comparison{Champion: "1", Better: true, Reason: "won", Figures: figures}, &Comparison{Champion: "1", Reason: "lost", Figures: figures}
	tests := []struct {
		name    string
		reigns  bool
		compare *Comparison
		faults  []mlflowtest.Fault // of setting the alias
		last    bool
		want    PromoteResult // but for the verdict
		says    string
	}{
		{name: "first", want: PromoteResult{Version: "1", Alias: "champion"}, says: "version 1 holds the alias champion"},
		{name: "no contest", reigns: true, want: PromoteResult{Version: "2", Alias: "champion", Former: "1"}, says: "which was version 1's"},
		{name: "won", reigns: true, compare: won, want: PromoteResult{Version: "2", Alias: "champion", Former: "1"}, says: "1's: won"},
		{name: "lost", reigns: true, compare: lost, want: PromoteResult{Version: "2"}, says: "refused: version 2 is registered, but version 1 keeps the alias champion: lost"},
		{name: "overtaken", reigns: true, compare: &Comparison{Champion: "0", Better: true}, want: PromoteResult{Version: "2", Overtaken: "1"}},
		{name: "overtaken again", reigns: true, compare: &Comparison{Champion: "0", Better: true}, last: true, want: PromoteResult{Version: "2", Overtaken: "1"},
			says: "the alias champion moved to version 1 while it was compared with version 0"},
		{name: "moved at the same moment", reigns: true, faults: []mlflowtest.Fault{{Status: 200, Body: "{}"}}, want: PromoteResult{Version: "2", Former: "1"}, says: "someone else moved it to version 1"},
		{name: "reply lost", reigns: true, faults: []mlflowtest.Fault{{Drop: true, Handle: true}}, want: PromoteResult{Version: "2", Alias: "champion", Former: "1"}, says: "promoted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReporting(t, some())
			if tt.reigns {
				r.reign(t, nil)
			}
			r.mlflow.Inject("POST api/2.0/mlflow/registered-models/alias", tt.faults...)
			in := r.candidate()
			in.Comparison, in.LastTry = tt.compare, tt.last
			var res PromoteResult
			lostReply := len(tt.faults) > 0 && tt.faults[0].Drop
			for attempt := range 2 { // the second finds what the first did
				var err error
				if res, err = r.promote(t, in); (err != nil) != (lostReply && attempt == 0) {
					t.Fatal(err)
				}
				if len(tt.faults) > 0 && !lostReply {
					break
				}
			}
			verdict := res.Verdict
			if res.Verdict = ""; res != tt.want || !strings.Contains(verdict, tt.says) {
				t.Errorf("got %+v, %q, want %+v, saying %q", res, verdict, tt.want, tt.says)
			}
			r.checkRegistry(t, res, verdict, tt.says != "")
		})
	}
}

// TestPromoteDenied: what passed the gate is not lost to a missing permission. The run says what was refused and how to
// go on, and what it leaves is enough to promote the model once the permission is there.
func TestPromoteDenied(t *testing.T) {
	denied := mlflowtest.Fault{Status: 403, Body: "Permission denied"}
	for _, tt := range []struct {
		name, call string
		version    string
		says       []string
	}{
		{"version", "POST api/2.0/mlflow/model-versions/create", "", []string{"refused to register it as a version of sms", "model-versions/create"}},
		{"alias", "POST api/2.0/mlflow/registered-models/alias", "2", []string{"refused to move the alias champion to its version 2 of sms", "registered-models/alias"}},
		{"registered model", "POST api/2.0/mlflow/registered-models/create", "", []string{"registered-models/create"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newReporting(t, some())
			r.reign(t, nil)
			in := r.candidate()
			in.Comparison = &Comparison{Champion: "1", Better: true, Reason: "won", Figures: &compare.Result{Rows: 4}}
			r.mlflow.Inject(tt.call, denied)
			res, err := r.promote(t, in)
			if err != nil {
				t.Fatal(err)
			}
			verdict := res.Verdict
			if res.Verdict = ""; res != (PromoteResult{Version: tt.version}) {
				t.Errorf("result %+v, want version %q without the alias", res, tt.version)
			}
			for _, says := range append(tt.says, "not promoted: "+in.ModelID+" passed the gate", "403", "the permission EDIT on the registered model",
				"--workflow-id 'promote/sms' --input-file promotion.json") {
				if !strings.Contains(verdict, says) {
					t.Errorf("verdict %q, want it to say %q", verdict, says)
				}
			}
			if run := r.mlflow.Runs()[0]; run.Tags["duratune.promotion"] != verdict || !strings.Contains(run.Tags["mlflow.note.content"], "**Promotion**: not promoted") {
				t.Errorf("tags of the run: %v", run.Tags)
			}
			var kept bytes.Buffer
			run, err := r.cpu.Tracking.GetRun(t.Context(), in.Run.MLflowRunID)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.cpu.Tracking.DownloadArtifact(t.Context(), run.ArtifactURI, "promotion.json", &kept, nil); err != nil {
				t.Fatal(err)
			}
			var later PromoteInput
			if err := json.Unmarshal(kept.Bytes(), &later); err != nil || later.Comparison != nil {
				t.Fatalf("kept %s, %v", kept.Bytes(), err)
			}
			later.Comparison = in.Comparison // as the workflow has it made anew
			if res, err = r.promote(t, later); err != nil || res.Version != "2" || res.Alias != "champion" || res.Former != "1" {
				t.Errorf("later: %+v, %v", res, err)
			}
			r.checkRegistry(t, res, res.Verdict, true)
		})
	}
}

// checkRegistry looks at who holds the alias and at the records of the verdict.
func (r *reporting) checkRegistry(t *testing.T, res PromoteResult, verdict string, recorded bool) {
	t.Helper()
	versions, aliases := r.mlflow.Versions("sms")
	version := versions[len(versions)-1]
	if got := aliases["champion"] == res.Version; got != (res.Alias != "") {
		t.Errorf("the alias is version %s's, the result is %+v", aliases["champion"], res)
	}
	if version.Tags["gate"] != "passed" || version.Tags["eval_accuracy"] != "0.7500" || version.Tags["duratune.recipe_digest"] != "r" || version.Tags["duratune.data_digest"] != "d" {
		t.Errorf("tags of the version: %v", version.Tags)
	}
	if !recorded {
		return
	}
	run := r.mlflow.Runs()[0]
	if version.Tags["duratune.promotion"] != verdict || run.Tags["duratune.promotion"] != verdict || version.Tags["duratune.former_champion"] != res.Former {
		t.Errorf("verdict %q, tags of the version %v", verdict, version.Tags)
	}
	if n := strings.Count(run.Tags["mlflow.note.content"], "**Promotion**"); n != 1 {
		t.Errorf("the description speaks %d times of the promotion:\n%s", n, run.Tags["mlflow.note.content"])
	}
}

// tinyTokenizer knows two words.
const tinyTokenizer = `{"version":"1.0","added_tokens":[{"id":2,"content":"[CLS]","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false},
	{"id":3,"content":"[SEP]","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false}],
	"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},
	"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],
	"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}},
	"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
	"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"hello":4,"hm":5}}}`

func championFiles(id2label string) map[string]string {
	return map[string]string{"MLmodel": "", "components/tokenizer/tokenizer.json": tinyTokenizer, "components/tokenizer/tokenizer_config.json": `{"model_max_length": 8}`,
		"model/config.json": `{"model_type":"bert","hidden_size":384,"num_hidden_layers":6,"num_attention_heads":12,"intermediate_size":1536,"vocab_size":6,"max_position_embeddings":512,
			"type_vocab_size":2,"hidden_act":"gelu","layer_norm_eps":1e-12,"hidden_dropout_prob":0.1,"attention_probs_dropout_prob":0.1,"pad_token_id":0,"id2label":` + id2label + `}`}
}

// oldEngine is a champion that says index 0 of the words it knows, and index 1 of the others.
type oldEngine struct{ fakeEngine }

func (*oldEngine) Logits(_ context.Context, inputs []train.Sequence, _ func(int)) ([][]float32, error) {
	out := make([][]float32, len(inputs))
	for i, in := range inputs {
		out[i] = []float32{float32(in.IDs[1]) - 3, 0}
	}
	return out, nil
}

func TestCompareChampion(t *testing.T) {
	right, swapped := `{"0":"ham","1":"spam"}`, `{"0":"spam","1":"ham"}`
	tests := []struct {
		name     string
		files    map[string]string
		margin   float64
		maxP     float64
		champion string
		better   bool
		figures  bool
		says     string
	}{
		{name: "nobody", better: true, says: "no version held the alias"},
		{name: "a better champion", files: championFiles(right), maxP: 1, champion: "1", figures: true, says: "accuracy 0.5000 against 1.0000 on the same 4 rows"},
		{name: "a worse champion", files: championFiles(swapped), maxP: 1, champion: "1", better: true, figures: true, says: "accuracy 0.5000 against 0.0000"},
		{name: "by too little", files: championFiles(swapped), margin: 0.6, maxP: 1, champion: "1", figures: true, says: "a margin of 0.6"},
		{name: "by chance", files: championFiles(swapped), maxP: 0.05, champion: "1", figures: true, says: "McNemar's exact p = 0.5"},
		{name: "other labels", files: championFiles(`{"0":"no","1":"yes"}`), maxP: 1, champion: "1", says: `its labels are ["no" "yes"]`},
		{name: "more labels", files: championFiles(`{"0":"ham","1":"spam","2":"egg"}`), maxP: 1, champion: "1", says: "move the alias by hand"},
		{name: "no labels", files: championFiles(`{}`), maxP: 1, champion: "1", says: "id2label"},
		{name: "not a classifier", files: map[string]string{"MLmodel": ""}, maxP: 1, champion: "1", says: "models:/sms/1/model/config.json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReporting(t, some())
			if tt.files != nil {
				r.reign(t, tt.files)
			}
			var opened train.Spec
			r.gpu.Open = func(_ context.Context, spec train.Spec) (train.Engine, error) {
				opened = spec
				return &oldEngine{}, nil
			}
			in := CompareChampionInput{RegisteredModel: "sms", Alias: "champion", ModelID: modelID(r.in.ModelURI),
				Contest: Contest{Session: r.input.Session, Texts: r.in.Split.Test, Predictions: r.in.Predictions, Margin: tt.margin, MaxP: tt.maxP}}
			v, err := r.env(t).ExecuteActivity(r.gpu.CompareChampion, in)
			if err != nil {
				t.Fatal(err)
			}
			var res Comparison
			if err := v.Get(&res); err != nil {
				t.Fatal(err)
			}
			if res.Champion != tt.champion || res.Better != tt.better || (res.Figures != nil) != tt.figures || !strings.Contains(res.Reason, tt.says) {
				t.Errorf("got %+v, want champion %q, better %v, figures %v, saying %q", res, tt.champion, tt.better, tt.figures, tt.says)
			}
			if tt.figures && (opened.MaxLength != 8 || !opened.Inference) {
				t.Errorf("opened with %+v, want the champion's own 8 tokens, for inference", opened)
			}
		})
	}
}

// TestCompareChampionDenied: who may not read the alias is no candidate for it, and the run goes on.
func TestCompareChampionDenied(t *testing.T) {
	r := newReporting(t, some())
	r.mlflow.Inject("GET api/2.0/mlflow/registered-models/alias", mlflowtest.Fault{Status: 403, Body: "Permission denied"})
	v, err := r.env(t).ExecuteActivity(r.gpu.CompareChampion, CompareChampionInput{RegisteredModel: "sms", Alias: "champion"})
	if err != nil {
		t.Fatal(err)
	}
	var res Comparison
	if err := v.Get(&res); err != nil || res.Better || !strings.Contains(res.Reason, "its holder cannot be read") || !strings.Contains(res.Reason, "403") {
		t.Errorf("got %+v, %v", res, err)
	}
}

// TestCompareChampionWaitsForTheServer: an outage is no reason to keep or to move an alias.
func TestCompareChampionWaitsForTheServer(t *testing.T) {
	r := newReporting(t, some())
	r.reign(t, championFiles(`{"0":"ham","1":"spam"}`))
	r.mlflow.Inject("GET api/2.0/mlflow-artifacts/artifacts", mlflowtest.Fault{Status: 503}, mlflowtest.Fault{Status: 503}, mlflowtest.Fault{Status: 503}, mlflowtest.Fault{Status: 503})
	in := CompareChampionInput{RegisteredModel: "sms", Alias: "champion", Contest: Contest{Session: r.input.Session, Texts: Share{Rows: artifact.Ref{}}}}
	in.Train = recipe.Train{Precision: "auto"}
	_, err := r.env(t).ExecuteActivity(r.gpu.CompareChampion, in)
	wantType(t, err, TypeTrackingUnavailable, true)
}
