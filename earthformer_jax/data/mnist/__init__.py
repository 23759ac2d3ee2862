"""MovingMNIST and N-body MNIST: generators and files."""
