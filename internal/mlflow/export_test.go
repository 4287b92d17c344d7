package mlflow

// SetMultipartFrom makes files of n bytes and more go up in parts, where the server can do that.
func (c *Client) SetMultipartFrom(n int64) { c.multipartFrom = n }
