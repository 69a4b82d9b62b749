# Handwritten digits: 8 x 8 pixels with values from 0 to 16.
# Only the model: Headrace builds it in a sandbox, where `torch`, `nn`, `F`, `Accuracy` and `Loss` are there already.
class DigitsNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, x):
        return self.layers(x / 16)

    def loss_fn(self):
        return nn.CrossEntropyLoss()

    def optimizer(self):
        return torch.optim.Adam(model.parameters(), lr=0.003)

    def metrics(self):
        return {"accuracy": Accuracy(), "loss": Loss(self.loss_fn())}


model = DigitsNetwork()
