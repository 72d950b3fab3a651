// faas-mesh from Go over HTTP and JSON: the standard library is enough.
// Run by: go run main.go http://localhost:8080 greet
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"
)

// refusal is the shape that every error has.
type refusal struct {
	Message string `json:"message"`
	Details []struct {
		Reason string `json:"reason"`
	} `json:"details"`
}

func (r refusal) Error() string { return r.Message }

var client = http.Client{Timeout: time.Minute}

func post(url string, body, answer any) error {
	document, err := json.Marshal(body)
	if err != nil {
		return err
	}
	response, err := client.Post(url, "application/json", bytes.NewReader(document))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var refused refusal
		if err := json.NewDecoder(response.Body).Decode(&refused); err != nil {
			return err
		}
		return refused
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

func run(url, name string) error {
	code := "def handler(payload):\n    return {\"hello\": payload[\"name\"]}\n"
	var made struct {
		Name    string `json:"name"`
		Version int    `json:"version"`
	}
	create := map[string]any{"name": name, "runtime": "python", "code": code}
	if err := post(url+"/functions", create, &made); err != nil {
		return err
	}
	print(map[string]any{"deployed": made.Name, "version": made.Version})

	var record struct {
		Status string `json:"status"`
		Result any    `json:"result"`
	}
	invoke := map[string]any{
		"function_id": name, "payload": map[string]string{"name": "Ada"}, "wait": "30s",
	}
	if err := post(url+"/invoke", invoke, &record); err != nil {
		return err
	}
	print(map[string]any{"status": record.Status, "result": record.Result})

	err := post(url+"/invoke", map[string]any{"function_id": name + "-gone"}, &record)
	if refused, ok := err.(refusal); ok {
		print(map[string]any{"refused": refused.Details[0].Reason})
		return nil
	}
	return fmt.Errorf("it was not refused: %v", err)
}

func print(value any) {
	document, _ := json.Marshal(value)
	fmt.Println(string(document))
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
