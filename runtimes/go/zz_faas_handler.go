// The handler's side of runtimes/CONTRACT.md, compiled with the user's package. The
// build adds a file that calls faasServe with the handler.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type faasHandler func(context.Context, json.RawMessage) (any, error)

// faasServe answers invocations until the worker closes its side, and ends the process.
func faasServe(handler faasHandler, module string) {
	descriptor, err := strconv.Atoi(os.Getenv("FUNCTION_SOCKET_FD"))
	if err != nil {
		output := os.Stdout
		// What the function prints is log.
		os.Stdout = os.Stderr
		result, failure := faasCall(handler, module, faasPayload(), 0)
		os.Exit(faasPrint(output, result, failure))
	}
	os.Unsetenv("FUNCTION_SOCKET_FD")
	os.Unsetenv("FUNCTION_MAX_RESULT")
	syscall.CloseOnExec(descriptor)
	connection := os.NewFile(uintptr(descriptor), "worker")
	if faasSend(connection, faasHeader{Type: "loaded"}, nil) != nil {
		os.Exit(1)
	}
	version, _ := strconv.Atoi(os.Getenv("FAAS_FUNCTION_VERSION"))
	load := faasHeader{
		FunctionID:      os.Getenv("FAAS_FUNCTION_ID"),
		FunctionName:    os.Getenv("FAAS_FUNCTION_NAME"),
		FunctionVersion: version,
	}
	for {
		invoke, payload, err := faasReceive(connection)
		if err != nil {
			os.Exit(0)
		}
		for name, value := range faasEnvironment(load, invoke) {
			os.Setenv(name, value)
		}
		result, failure := faasCall(handler, module, payload, invoke.Deadline)
		if faasAnswer(connection, invoke.InvocationID, result, failure) != nil {
			os.Exit(1)
		}
	}
}

// faasCall calls the handler once. A panic is the function's error, as a returned one is.
func faasCall(handler faasHandler, module string, payload []byte, deadline float64) (result faasResult, failure *faasHeader) {
	ctx := context.Background()
	if deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, time.UnixMicro(int64(deadline*1e6)))
		defer cancel()
	}
	defer func() {
		if reason := recover(); reason != nil {
			failure = faasFailure("FUNCTION_ERROR", fmt.Sprint(reason))
			failure.ErrorType = "panic"
			if err, ok := reason.(error); ok {
				failure.ErrorType = fmt.Sprintf("%T", err)
			}
			failure.Stack = faasStack(module)
		}
	}()
	value, err := handler(ctx, payload)
	if err != nil {
		failure = faasFailure("FUNCTION_ERROR", err.Error())
		failure.ErrorType = fmt.Sprintf("%T", err)
		return faasResult{}, failure
	}
	return faasTyped(value)
}

// faasTyped is what a handler returned: a []byte is raw, and so are bytes and strings of
// a type that says its ContentType; anything else is JSON.
func faasTyped(value any) (faasResult, *faasHeader) {
	result := faasResult{contentType: faasRaw}
	typed, declared := value.(interface{ ContentType() string })
	raw := reflect.ValueOf(value)
	if content, ok := value.([]byte); ok {
		result.content = content
	} else if declared && raw.Kind() == reflect.String {
		result = faasResult{[]byte(raw.String()), typed.ContentType()}
	} else if declared && raw.Kind() == reflect.Slice && raw.Type().Elem().Kind() == reflect.Uint8 {
		result = faasResult{raw.Bytes(), typed.ContentType()}
	} else {
		content, failure := faasEncode(value)
		return faasResult{content, faasJSON}, failure
	}
	if len(result.content) > faasMaxResult {
		return faasResult{}, faasTooLarge()
	}
	return result, nil
}

func faasEncode(value any) ([]byte, *faasHeader) {
	var document bytes.Buffer
	encoder := json.NewEncoder(&document)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		failure := faasFailure("BAD_OUTPUT", "the result is not JSON: "+err.Error())
		var marshaler *json.MarshalerError
		if errors.As(err, &marshaler) {
			failure.Message = "the result is not JSON: " + marshaler.Unwrap().Error()
		}
		failure.ErrorType = fmt.Sprintf("%T", err)
		return nil, failure
	}
	result := bytes.TrimSuffix(document.Bytes(), []byte("\n"))
	return result, faasCheck(result)
}

// faasStack is the panic's stack in the user's own lines, most recent call last.
func faasStack(module string) string {
	var counters [128]uintptr
	frames := runtime.CallersFrames(counters[:runtime.Callers(0, counters[:])])
	var lines []string
	for {
		frame, more := frames.Next()
		file, own := strings.CutPrefix(frame.File, module+"/")
		if own && !strings.HasPrefix(file, "zz_faas_") {
			lines = append([]string{fmt.Sprintf("%s:%d in %s", file, frame.Line, frame.Function)}, lines...)
		}
		if !more {
			return faasCut(strings.Join(lines, "\n"))
		}
	}
}
