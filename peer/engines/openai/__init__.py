"""The engine that leans on a server with OpenAI's API: llama.cpp's, vLLM, Ollama, KoboldCpp, LocalAI and others."""
