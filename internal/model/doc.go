// Package model is DistilBERT, BERT and RoBERTa for sequence classification, as Hugging Face's transformers 5.17 defines
// them: the same config.json, the same weight names, the same numbers.
//
// [ReadConfig], [Layout] and [Load] are pure Go, so that a model folder can be checked where there is no libtorch.
// [Model] (build tag torch) is the forward pass, on the operations of package torch.
//
// Three things differ from the Python, none of them in the mathematics:
//
//   - All weights lie in one flat buffer. Query, key and value are neighbours in it, so that one matrix product serves the
//     three and their views still have Hugging Face's names.
//   - A batch is packed: the rows of all sequences one after the other, without padding. Padding never influences the
//     logits, so the result is that of any padded batch up to the order of additions.
//   - The head reads only the first token of each sequence, so the last layer computes only that one's output.
package model
