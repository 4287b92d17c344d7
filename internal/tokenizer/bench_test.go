package tokenizer

import (
	"os"
	"strings"
	"testing"
)

// smsTexts are the messages of the SMS Spam Collection.
func smsTexts(tb testing.TB) []string {
	tb.Helper()
	data, err := os.ReadFile(shared(tb, "sms_spam", "SMSSpamCollection"))
	if err != nil {
		tb.Fatal(err)
	}
	var texts []string
	for line := range strings.Lines(string(data)) {
		_, text, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		texts = append(texts, text)
	}
	return texts
}

func BenchmarkAppendIDs(b *testing.B) {
	for _, tt := range []struct {
		name string
		path func(testing.TB) string
	}{{"WordPiece", minilm}, {"BPE", roberta}} {
		b.Run(tt.name, func(b *testing.B) {
			tok, texts := load(b, tt.path(b)), smsTexts(b)
			var ids []int32
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				ids = tok.AppendIDs(ids[:0], texts[n%len(texts)], 128)
				n++
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "texts/s")
		})
	}
}
